"""`sparsediff bench --transformer`: full-size denoising steps with random weights, dense and sparse."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

SCHEMA = "sparsediff.bench-transformer/1"
NAMES = ("wan2.1-14b", "hunyuanvideo", "cogvideox1.5-5b", "flux")
STEPS = 50
KINDS = {
    "dense": "dense",
    "search": "dense with search",
    "refresh": "sparse with search",
    "sparse": "sparse",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this benchmark takes; device, dtype, repeat and json are those of `bench`."""
    group = parser.add_argument_group(
        "full-size steps",
        "The real architecture with random weights, nothing downloaded: the time of a denoising step, "
        "dense and with AdaSpa, and the run they add up to. Speed only.",
    )
    group.add_argument("--transformer", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    group.add_argument(
        "--size", default="1280x720x81", help="width x height x frames; default: %(default)s"
    )
    group.add_argument("--layers", type=int, help="build only so many of the model's blocks")
    group.add_argument("--density", type=float, default=0.2, help="default: %(default)s")
    group.add_argument(
        "--steps", type=int, default=STEPS, help="steps of the projected run; default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print; raises SparseError for bad input, or a model that does not fit."""
    import torch

    from sparsediff.token_size import parse_size
    from sparsediff.transformer_bench.architectures import architecture
    from sparsediff.transformer_bench.measurement import TransformerCase, measure_transformer

    found = architecture(args.transformer)
    width, height, frames = parse_size(args.size)
    cuda = torch.device(args.device).type == "cuda"
    case = TransformerCase(
        architecture=found,
        size=(width, height, frames if found.frames_in_latent else 1),
        layers=args.layers,
        density=args.density,
        block_size=args.block_size,
        steps=args.steps,
        repeat=args.repeat,
        device=args.device,
        dtype=getattr(torch, args.dtype or ("bfloat16" if cuda else "float32")),
    )
    result = measure_transformer(case, _say)
    facts = _facts(case)
    if args.json:
        print(json.dumps({"schema": SCHEMA, **facts, **result.to_dict()}))
    else:
        _print(facts, result, asked_frames=frames)
    return 0


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _facts(case: Any) -> dict[str, Any]:
    import torch

    from sparsediff import environment

    return {
        "device": case.device,
        "device_name": environment.device_name(case.device),
        "torch": torch.__version__,
        "versions": environment.versions(),
    }


def _print(facts: dict[str, Any], result: Any, *, asked_frames: int) -> None:
    from sparsediff.cli.table import table
    from sparsediff.transformer_bench.result import NOTE, STEADY

    print(_model_text(facts, result.model, asked_frames))
    trials = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in result.dense_trials.items())
    print(f"dense attention by {result.dense_kernel}, the fastest of one call here: {trials}\n")
    lines = [("step", "seconds", "IQR", "n", "attention s", "share of step")]
    for kind, found in {"dense": result.dense, **result.times}.items():
        lines.append(
            (
                KINDS[kind],
                f"{found.seconds:.3f}",
                f"{found.iqr:.3f}" if len(found.rounds) > 1 else "-",
                str(len(found.rounds)),
                f"{found.attention:.3f}",
                f"{found.attention_share:.0%}",
            )
        )
    print(table(lines))
    print(f"\n{_summary(result)}")
    if result.unsteady > STEADY:
        print(
            f"\nNOT A QUIET MACHINE: the work outside of attention is the same in every step, and took "
            f"up to {result.unsteady:.2f} times as long; do not quote the figures of steps and runs."
        )
    print(f"\n{NOTE}")


def _model_text(facts: dict[str, Any], model: Any, asked_frames: int) -> str:
    width, height, frames = model.size
    frames_, rows, columns = model.grid
    lines = [
        f"{model.name}: {model.layers} of {model.all_layers} blocks, "
        f"{model.parameters / 1e9:.2f}e9 random weights, {model.dtype}",
        f"config of {model.source}",
        f"{facts['device_name']}, torch {facts['torch']}",
        f"{width}x{height}x{frames}: {model.tokens} tokens ({frames_} x {rows} x {columns} and "
        f"{model.text_tokens} of text), {model.heads} heads of {model.head_dim}",
        f"a step: {model.step}; what the pipeline adds around them is left out",
    ]
    if model.layers < model.all_layers:
        lines.insert(1, "every figure below is of these blocks, not of the whole model")
    if asked_frames != frames:
        lines.append(f"it makes images: the {asked_frames} frames of --size were not used")
    return "\n".join(lines)


def _summary(result: Any) -> str:
    counts = result.counts
    parts = ", ".join(f"{counts[kind]} {text}" for kind, text in KINDS.items() if kind in counts)
    peak = result.peak_gib
    memory = (
        "peak memory not measured on this device"
        if peak is None
        else f"peak memory {peak['dense']:.1f} GiB dense, {peak['sparse']:.1f} GiB sparse"
    )
    backends = ", ".join(f"{name}: {count}" for name, count in result.backends.items())
    saved = result.projected_dense / result.projected
    return "\n".join(
        [
            f"AdaSpa, density {result.density} ({result.sparse_density:.3f} of all block pairs, text "
            f"included): a sparse step is {result.step_speedup:.2f}x as fast as a dense one, its "
            f"attention {result.attention_speedup:.2f}x",
            f"{result.sparse_calls} calls ran sparse ({backends}), none fell back",
            memory,
            f"projected run of {len(result.kinds)} steps: {result.projected_dense:.1f} s dense, "
            f"{result.projected:.1f} s sparse, {saved:.2f}x ({parts})",
        ]
    )
