"""`sparsediff generate`: a video from a prompt, sparse, or sparse and dense side by side."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparsediff.cli.generate_arguments import add_arguments, call_arguments, method_options

if TYPE_CHECKING:
    from sparsediff.generation_request import GenerationRequest
    from sparsediff.generation_result import GenerationResult
    from sparsediff.plans import PatternPlan


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
    add_arguments(p)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError."""
    from sparsediff.cli.outputs import Outputs

    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is not our answer
        request = _request(args)
        recipe = request.recipe()
        outputs = Outputs.of(args.output, name=f"{recipe.prompt} {args.seed}")
        outputs.check(frames=recipe.call.get("num_frames", 1))
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

    return GenerationRequest(
        model=args.model,
        prompt=args.prompt,
        method=_plan(args.plan) if args.plan else args.method,
        options=method_options(args),
        backend=args.backend,
        gate=args.gate,
        student=args.student,
        seed=args.seed,
        call=call_arguments(args),
        repeat=args.repeat,
        compare=args.compare,
        device=args.device,
        dtype=args.dtype,
    )


def _plan(name: str) -> PatternPlan:
    from sparsediff.plans import PatternPlan

    return PatternPlan.from_pretrained(name)


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
