"""`sparsediff models`: which model classes sparse attention reaches, and which are refused."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsediff.models import ModelFacts

SCHEMA = "sparsediff.models/1"
# Where the text stands beside the video, in words.
TEXT = {"none": "apart", "first": "before", "last": "after"}


def add_parser(commands: Any) -> None:
    """Add the sub-command to the command line."""
    p = commands.add_parser(
        "models",
        help="which models sparse attention works on",
        description="Every diffusers model class that sparse attention reaches: what people call it, "
        "where its text stands in the sequence, what of its self-attention stays dense; and what is "
        "refused for a reason.",
    )
    p.add_argument("--markdown", action="store_true", help="the table of the README")
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    if args.json:
        print(json.dumps(document()))
    elif args.markdown:
        print(matrix())
    else:
        print(listing())
    return 0


def document() -> dict[str, Any]:
    """The table of models, JSON-ready."""
    from sparsediff.models import FACTS, REFUSED

    rows = [
        {"model": f.model, "pipelines": f.pipelines, "text": f.text, "dense": f.dense or None}
        for f in FACTS.values()
    ]
    return {"schema": SCHEMA, "models": rows, "refused": dict(REFUSED)}


def matrix() -> str:
    """The table of models in Markdown."""
    from sparsediff.models import FACTS

    lines = ["| model class | pipelines | text | stays dense |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_row(facts))} |" for facts in FACTS.values()]
    return "\n".join(lines)


def _row(facts: ModelFacts) -> tuple[str, ...]:
    return f"`{facts.model}`", facts.pipelines, TEXT[facts.text], facts.dense


def listing() -> str:
    """The table of models for a terminal."""
    from sparsediff.models import FACTS, REFUSED

    width = max(map(len, (*FACTS, *REFUSED)))
    lines = ["Sparse attention works on:"]
    for facts in FACTS.values():
        dense = f"; dense: {facts.dense}" if facts.dense else ""
        lines.append(f"  {facts.model:{width}}  {facts.pipelines}{dense}")
    lines.append("Refused:")
    lines += [f"  {model:{width}}  {reason}" for model, reason in REFUSED.items()]
    return "\n".join(lines)
