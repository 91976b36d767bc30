"""The arguments of `sparsediff search`; importing this imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from sparsediff.cli.flags import folder
from sparsediff.cli.generate_arguments import DTYPE_NAMES
from sparsediff.cli.public_words import public_path

# Written out because the packages that know them import torch; a test compares them.
BUDGETS = ("density", "psnr", "speedup")
COSTS = ("measured", "flops")
LIMIT = 8


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add every argument, in groups."""
    p.add_argument("model", metavar="MODEL", nargs="?", help="pipeline folder or Hub id")
    p.add_argument("--prompts", metavar="FILE", help="calibration prompts, one a line")
    p.add_argument("--limit", type=int, metavar="N", help=f"use the first N prompts ({LIMIT})")
    new = "new folder for the plan and all work done"
    p.add_argument("-o", "--out", type=folder, metavar="DIR", help=new)
    p.add_argument(
        "--resume", metavar="DIR", help="go on with the search in this folder; needs nothing else"
    )
    _add_budget(p.add_argument_group("budget (one of them)"))
    _add_patterns(p.add_argument_group("patterns"))
    call = p.add_argument_group("pipeline call (default: generation.json, else the pipeline's)")
    call.add_argument("--size", metavar="WxHxF", help="pixels and frames, such as 832x480x81")
    call.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    call.add_argument("--seed", type=int, help="of the first prompt, each next one's is higher (0)")
    run = p.add_argument_group("run")
    run.add_argument(
        "--max-minutes", type=float, metavar="N", help="begin no prompt after N minutes"
    )
    run.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    run.add_argument("--dtype", choices=DTYPE_NAMES, help="dtype of the weights")
    run.add_argument("--backend", help="kernel backend (auto)")
    out = p.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    out.add_argument(
        "--progress", action="store_true", help="tell the progress even if nobody sits there"
    )
    out.add_argument("--quiet", action="store_true", help="tell no progress")


def _add_budget(group: argparse._ArgumentGroup) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument("--density", type=float, help="share of blocks that sparse calls compute")
    one.add_argument("--psnr", type=float, metavar="DB", help="least PSNR against the dense videos")
    one.add_argument("--speedup", type=float, metavar="TIMES", help="least speed, dense is 1")


def _add_patterns(group: argparse._ArgumentGroup) -> None:
    def flag(name: str, words: str) -> None:
        group.add_argument(name, action="store_true", default=None, help=words)

    flag("--allow-skip", "let up to 3 %% of the heads be left out")
    flag("--online", "let heads be searched while generating, as adaspa does")
    flag("--compensate", "let left-out blocks take part as one mean key and value")
    group.add_argument("--block-size", type=int, metavar="TOKENS", help="tokens of a block (64)")
    group.add_argument(
        "--cost", choices=COSTS, help="what a pattern costs is (measured) or counted"
    )


def pattern_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of SearchOptions that were given."""
    names = ("allow_skip", "online", "compensate", "block_size", "cost")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def missing(args: argparse.Namespace) -> str | None:
    """What a command line lacks or has too much of, in words; None when it is complete."""
    if args.resume is not None:
        if args.out is not None:
            return "--resume goes on in its own folder; leave out --out"
        alone = args.limit is not None and args.prompts is None
        return "--limit needs --prompts; --resume knows its prompts" if alone else None
    if all(getattr(args, kind) is None for kind in BUDGETS):
        return "one of the arguments --density --psnr --speedup is required"
    needed = {"MODEL": args.model, "--prompts": args.prompts, "--out": args.out}
    lacking = [name for name, value in needed.items() if value is None]
    return f"the following arguments are required: {', '.join(lacking)}" if lacking else None


def command_words(args: argparse.Namespace) -> list[str]:
    """The command without budget, output and what this run alone is about, to be repeated later.

    Of absolute paths only the last part: the command is published with the plan.
    """
    words = [
        "sparsediff",
        "search",
        public_path(args.model),
        "--prompts",
        public_path(args.prompts),
    ]
    for name in (
        "limit",
        "size",
        "steps",
        "seed",
        "block_size",
        "cost",
        "device",
        "dtype",
        "backend",
    ):
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("allow_skip", "online", "compensate"):
        if getattr(args, name):
            words.append(f"--{name.replace('_', '-')}")
    return words
