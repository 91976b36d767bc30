"""The `sparsediff` command: one module per sub-command, nothing heavy imported for --help.

Exit codes: 0 done, 1 an error that the message explains, 2 a wrong command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from sparsediff import __version__
from sparsediff.cli import (
    bench,
    distill,
    doctor,
    fidelity,
    generate,
    models,
    prune,
    report,
    search,
    ui,
)

_COMMANDS = (generate, search, distill, prune, report, doctor, models, bench, fidelity, ui)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="sparsediff",
        description="Sparse attention for Hugging Face diffusers pipelines.",
        epilog="Exit codes: 0 done, 1 error, 2 wrong command line, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"sparsediff {__version__}")
    commands = top.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    for command in _COMMANDS:
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parser().parse_args(argv)
    # Read when torch starts its threads: ones that spin while they wait slow down the CPU kernels.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args.argv = list(sys.argv[1:] if argv is None else argv)
    command = next(c for c in _COMMANDS if c.__name__.rpartition(".")[2] == args.command)
    as_json = bool(getattr(args, "json", False))
    try:
        return int(command.run(args) or 0)
    except ValueError as error:
        from sparsediff.kernels.errors import SparseError  # brings in torch, so not for --help

        if not isinstance(error, SparseError):
            raise
        return _fail(args.command, " ".join(str(error).split()), 1, as_json)
    except KeyboardInterrupt:
        return _fail(args.command, "Interrupted.", 130, as_json)
    except BrokenPipeError:  # the reader of a pipe went away: `sparsediff ... | head`
        sys.stderr.close()
        return 0


def _fail(command: str, message: str, code: int, as_json: bool) -> int:
    print(f"sparsediff {command}: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"schema": f"sparsediff.{command}/1", "error": message}))
    return code
