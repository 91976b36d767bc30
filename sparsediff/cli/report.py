"""`sparsediff report`: one HTML page of a plan and of the search that found it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

NAME = "plan.html"


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "report",
        help="make an HTML page of a plan and its search",
        description="Write one HTML file that needs nothing else: the mode of every head, its "
        "attention beside its pattern, error against cost, frames, and where the plan is from. A "
        "folder with a plan alone is enough; the page says what it could not show.",
        epilog="example: sparsediff report runs/plan",
    )
    p.add_argument("folder", metavar="DIR", help="folder of a search, or of a plan")
    p.add_argument("-o", "--output", metavar="FILE", help=f"the page to write (DIR/{NAME})")
    p.add_argument(
        "--videos",
        metavar="DIR",
        help="folder that sparsediff generate --plan --compare wrote (the plan's own)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises SparseError."""
    from sparsediff.kernels.errors import SparseError
    from sparsediff.plan_report import PlanReport
    from sparsediff.report_pages.plan_page import plan_page

    folder = Path(args.folder).expanduser()
    output = Path(args.output).expanduser() if args.output else folder / NAME
    if args.output and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise SparseError(f"{output} cannot be written; give a file in a folder that exists.")
    videos = Path(args.videos).expanduser() if args.videos else None
    report = PlanReport.of(folder, videos=videos)
    try:
        output.write_text(plan_page(report), encoding="utf-8")
    except OSError as error:
        raise SparseError(f"{output} cannot be written: {error.strerror or error}.") from error
    if args.json:
        print(json.dumps({**report.to_dict(), "output": str(output)}, allow_nan=False))
        return 0
    print(report.plan)
    for words in report.missing:
        print(f"not shown: {words}")
    print(f"\npage: {output}")
    return 0
