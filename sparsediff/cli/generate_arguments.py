"""The arguments of `sparsediff generate`; importing this imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

# Written out because asking the registry imports torch; a test compares them.
METHOD_NAMES = ("adaspa", "blade-asa", "window", "random", "true-mass")
DTYPE_NAMES = ("float32", "bfloat16", "float16")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add every argument, in groups."""
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
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--method", choices=METHOD_NAMES, default="adaspa", help="default: %(default)s"
    )
    either.add_argument("--plan", metavar="PLAN", help="folder, JSON file or Hub id of a plan")
    either.add_argument(
        "--student",
        metavar="STUDENT",
        help="folder or Hub id of a distilled student of this model: its steps, its attention",
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
        "--refresh",
        type=shares,
        metavar="SHARES",
        help="shares of the steps at which the pattern is searched again, such as 0.6,0.8, or none",
    )
    group.add_argument(
        "--compensate",
        action=argparse.BooleanOptionalAction,
        help="let left-out blocks take part as one mean key and value",
    )
    group.add_argument(
        "--energy", type=float, help="blade-asa: share of the sampled attention a row must hold"
    )
    group.add_argument(
        "--global-window",
        type=int,
        metavar="TOKENS",
        help="blade-asa: every so many tokens as one more key",
    )
    group.add_argument(
        "--token-order",
        metavar="ORDER",
        help="order in which video tokens are cut into blocks: raster, tile or gilbert",
    )
    group.add_argument(
        "--no-strict",
        dest="strict",
        action="store_const",
        const=False,
        help="carry a plan over to another size than it was searched for",
    )
    group.add_argument(
        "--online-above",
        type=float,
        metavar="ERROR",
        help="search heads of a plan while generating whose error was larger, such as 0.1",
    )
    group.add_argument("--backend", default="auto", help="kernel backend (default: %(default)s)")
    group.add_argument(
        "--no-gate",
        dest="gate",
        action="store_false",
        help="run sparse also where it is predicted to be slower than dense",
    )


def _add_call(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    group.add_argument("--height", type=int, metavar="PIXELS")
    group.add_argument("--width", type=int, metavar="PIXELS")
    group.add_argument("--frames", type=int, metavar="N")
    group.add_argument("--guidance", type=float, metavar="SCALE", help="guidance scale")
    group.add_argument("--negative", metavar="TEXT", help="negative prompt")


def shares(text: str) -> tuple[float, ...]:
    """The numbers of "0.6,0.8"; no number for "none". For argparse: any other text is refused."""
    if text.strip().lower() == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} needs numbers with commas between, such as 0.6,0.8, or none"
        ) from None


def method_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the method that were given."""
    names = (
        "density",
        "block_size",
        "warmup",
        "refresh",
        "compensate",
        "energy",
        "global_window",
        "token_order",
        "strict",
        "online_above",
    )
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def call_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the pipeline that were given, by the pipeline's names."""
    values = {
        "num_inference_steps": args.steps,
        "height": args.height,
        "width": args.width,
        "num_frames": args.frames,
        "guidance_scale": args.guidance,
        "negative_prompt": args.negative,
    }
    return {name: value for name, value in values.items() if value is not None}
