"""`sparsediff search`: a plan, the pattern of every head, searched offline over a few prompts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparsediff.cli.prompt_file import read_prompts
from sparsediff.cli.search_arguments import (
    BUDGETS,
    LIMIT,
    add_arguments,
    command_words,
    missing,
    pattern_options,
)

if TYPE_CHECKING:
    from sparsediff.pattern_search.budget import Budget
    from sparsediff.pattern_search.request import SearchRequest
    from sparsediff.pattern_search.result import SearchResult
    from sparsediff.pattern_search.settings import SearchSettings
    from sparsediff.pattern_search.watch import Progress

SCHEMA = "sparsediff.search/1"
INTERRUPTED = 130


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "search",
        help="find the pattern of every head once, to generate with later",
        description="Run every prompt dense and then with the patterns tried on it, and write a plan: "
        "the cheapest pattern of every head within a budget. Finished prompts are saved, so an "
        "interrupted search goes on with --resume. Under torchrun the prompts are divided among the "
        "processes.",
        epilog="example: sparsediff search samples/models/shapes-wan "
        "--prompts samples/calibration.txt --density 0.3 --out runs/plan",
    )
    add_arguments(p)
    p.set_defaults(refuse=p.error)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError."""
    wrong = missing(args)
    if wrong:
        args.refuse(wrong)
    with contextlib.redirect_stdout(sys.stderr), _terminated_like_interrupted():
        request = _request(args)
        try:
            result = _search(request, args)
        except KeyboardInterrupt:
            result = None
    if not _is_main():
        return 0 if result else INTERRUPTED
    if result is None:
        return _interrupted(request, args)
    if args.json:
        found = {**result.to_dict(), "schema": SCHEMA, "out": str(result.folder.path)}
        print(json.dumps(found, allow_nan=False))
    else:
        from sparsediff.cli.search_figures import search_figures

        print(search_figures(result))
        print(f"\n{_next_step(result)}")
    return 0


def _request(args: argparse.Namespace) -> SearchRequest:
    from sparsediff.pattern_search.request import SearchRequest
    from sparsediff.token_size import parse_size

    limit = LIMIT if args.limit is None else args.limit
    prompts = None if args.prompts is None else tuple(read_prompts(args.prompts, limit))
    budget = _budget(args)
    shared: dict[str, Any] = {
        "size": None if args.size is None else parse_size(args.size),
        "steps": args.steps,
        "device": args.device,
        "dtype": args.dtype,
        "options": pattern_options(args),
    }
    if args.resume is not None or budget is None or prompts is None:
        given = {"model": args.model, "prompts": prompts, "budget": budget}
        given |= {"seed": args.seed, "backend": args.backend}
        return SearchRequest.resume(args.resume, **given, **shared)
    return SearchRequest.new(
        args.model,
        prompts,
        budget,
        args.out,
        seed=args.seed or 0,
        backend=args.backend or "auto",
        command=shlex.join(command_words(args)),
        **shared,
    )


def _budget(args: argparse.Namespace) -> Budget | None:
    from sparsediff.pattern_search.budget import Budget

    for kind in BUDGETS:
        if getattr(args, kind) is not None:
            return Budget(kind=kind, value=getattr(args, kind))
    return None


def _search(request: SearchRequest, args: argparse.Namespace) -> SearchResult:
    from sparsediff.loading import hide_library_bars
    from sparsediff.pattern_search.driver import search
    from sparsediff.pattern_search.watch import Watch

    seen = sys.stderr.isatty() and not args.json
    told = (args.progress or seen) and not args.quiet
    bars = seen and told and _is_main()
    if not bars:
        hide_library_bars()

    def tell(progress: Progress) -> None:
        if told:
            print(_progress_line(progress), file=sys.stderr, flush=True)

    return search(request, Watch(progress=tell, max_minutes=args.max_minutes, bars=bars))


def _progress_line(progress: Progress) -> str:
    left = progress.seconds_left
    words = ""
    if left is not None:
        words = f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
    return f"{progress.done}/{progress.total} {progress.text}{words}"


def _interrupted(request: SearchRequest, args: argparse.Namespace) -> int:
    """Say what is saved and how to go on."""
    from sparsediff.kernels.errors import SparseError

    folder = request.folder
    try:
        done, total = folder.saved()
        words = f"saved {done} of {total} units; resume: {resume_command(str(folder.path))}"
    except SparseError:  # interrupted while the model was loaded
        words = "interrupted before anything was done; nothing is saved."
    print(f"sparsediff search: {words}", file=sys.stderr)
    if args.json:
        print(json.dumps({"schema": SCHEMA, "error": words}))
    return INTERRUPTED


def resume_command(folder: str) -> str:
    """The command that goes on with a search."""
    return shlex.join(["sparsediff", "search", "--resume", folder])


def _next_step(result: SearchResult) -> str:
    settings, plan = result.settings, str(result.folder.path)
    words = ["sparsediff", "generate", settings.model, settings.prompts[0], "--plan", plan]
    return f"next: {shlex.join([*words, *_call_flags(settings), '--compare'])}"


def _call_flags(settings: SearchSettings) -> list[str]:
    """Size and steps where they are not the model's own: a plan runs at its size only."""
    from sparsediff.generation import GenerationRecipe
    from sparsediff.model_files import ModelFiles

    own = GenerationRecipe.of(ModelFiles(name=settings.model)).call
    flags = {
        "height": "--height",
        "width": "--width",
        "num_frames": "--frames",
        "num_inference_steps": "--steps",
    }
    there = [key for key in flags if key in settings.call and settings.call[key] != own.get(key)]
    return [word for key in there for word in (flags[key], str(settings.call[key]))]


def _is_main() -> bool:
    """Whether this is the process of a launch that prints."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which batch systems send, ends the search like Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
