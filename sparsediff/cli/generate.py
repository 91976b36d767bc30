"""`sparsediff generate`: a video from a prompt, sparse, or sparse and dense side by side."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsediff.generation_request import GenerationRequest
    from sparsediff.generation_result import GenerationResult

# Written out because asking the registry imports torch; a test compares them.
METHOD_NAMES = ("adaspa", "window", "random", "true-mass")
DTYPE_NAMES = ("float32", "bfloat16", "float16")


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "generate",
        help="make a video, and with --compare the dense one beside it",
        description="Generate a video (or an image) with sparse attention. A generation.json in "
        "the model folder supplies size, frames, steps and guidance.",
        epilog='example: sparsediff generate samples/models/shapes-wan "a red circle moving right" '
        "--compare --density 0.25",
    )
    p.add_argument("model", metavar="MODEL", help="pipeline folder or Hub id")
    p.add_argument("prompt", nargs="?", help="default: the one in the model's generation.json")
    p.add_argument(
        "--compare", action="store_true", help="also run dense from the same seed; write a report"
    )
    _add_method(p.add_argument_group("sparse attention"))
    _add_call(p.add_argument_group("pipeline call (default: generation.json, else the pipeline's)"))
    run = p.add_argument_group("run")
    run.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    run.add_argument("--repeat", type=int, default=1, metavar="N", help="timed runs of each kind")
    run.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    run.add_argument("--dtype", choices=DTYPE_NAMES, help="dtype of the weights")
    out = p.add_argument_group("output")
    out.add_argument(
        "-o", "--output", metavar="PATH", help="folder, or a file ending in .mp4, .gif or .png"
    )
    out.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    out.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_method(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--method", choices=METHOD_NAMES, default="adaspa", help="default: %(default)s"
    )
    group.add_argument(
        "--density", type=float, help="share of blocks a sparse call computes, in (0, 1]"
    )
    group.add_argument("--block-size", type=int, metavar="TOKENS", help="tokens of a block")
    group.add_argument(
        "--warmup",
        type=float,
        metavar="SHARE",
        help="share of the steps, at the start, that run dense",
    )
    group.add_argument(
        "--compensate",
        action=argparse.BooleanOptionalAction,
        help="let left-out blocks take part as one mean key and value",
    )
    group.add_argument("--backend", default="auto", help="kernel backend (default: %(default)s)")


def _add_call(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    group.add_argument("--height", type=int, metavar="PIXELS")
    group.add_argument("--width", type=int, metavar="PIXELS")
    group.add_argument("--frames", type=int, metavar="N")
    group.add_argument("--guidance", type=float, metavar="SCALE", help="guidance scale")
    group.add_argument("--negative", metavar="TEXT", help="negative prompt")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError."""
    from sparsediff.cli.outputs import Outputs

    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is not our answer
        request = _request(args)
        recipe = request.recipe()
        outputs = Outputs.of(args.output, name=f"{recipe.prompt} {args.seed}")
        outputs.prepare(frames=recipe.call.get("num_frames", 1))
        result = _generate(request, args)
        written = outputs.write(result, command=f"sparsediff {shlex.join(args.argv)}")
    if args.json:
        print(json.dumps(result.to_dict(written), allow_nan=False))
    else:
        from sparsediff.cli.figures import figures

        print(figures(result, written))
        print(f"\n{_next_step(args, written)}")
    return 0


def _request(args: argparse.Namespace) -> GenerationRequest:
    from sparsediff.generation_request import GenerationRequest

    options = {
        "density": args.density,
        "block_size": args.block_size,
        "warmup": args.warmup,
        "compensate": args.compensate,
    }
    call = {
        "num_inference_steps": args.steps,
        "height": args.height,
        "width": args.width,
        "num_frames": args.frames,
        "guidance_scale": args.guidance,
        "negative_prompt": args.negative,
    }
    return GenerationRequest(
        model=args.model,
        prompt=args.prompt,
        method=args.method,
        options={key: value for key, value in options.items() if value is not None},
        backend=args.backend,
        seed=args.seed,
        call={key: value for key, value in call.items() if value is not None},
        repeat=args.repeat,
        compare=args.compare,
        device=args.device,
        dtype=args.dtype,
    )


def _generate(request: GenerationRequest, args: argparse.Namespace) -> GenerationResult:
    from sparsediff.compare import generate
    from sparsediff.loading import hide_library_bars

    bars = sys.stderr.isatty() and not args.quiet and not args.json
    if not bars:
        hide_library_bars()
    return generate(request, bars=bars)


def _next_step(args: argparse.Namespace, written: Mapping[str, str]) -> str:
    if args.compare:
        return f"next: open {written['report']} in a browser"
    return f"next: sparsediff {shlex.join([*args.argv, '--compare'])}"
