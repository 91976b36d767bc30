"""`sparsediff doctor`: what this machine has, and whether a model can run sparse on it."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    commands.add_parser("doctor", help="what this machine and a model can do")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    return 0
