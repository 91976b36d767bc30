"""A plan for any tiny pipeline, with every mode, and ways to spoil its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from sparsediff.plans import Evidence, Fingerprint, PatternPlan
from sparsediff.search import PatternTable, PlannedHead, TokenGrid
from sparsediff.search.patterns.pattern import (
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Pattern,
    Skip,
    Stripe,
)

GRID = TokenGrid(frames=3, height=4, width=4)  # of tiny_pipelines' Wan at its usual size
BLOCK = 8
PATTERNS: tuple[Pattern, ...] = (
    Diagonal(half_width=0.25),
    MultiDiagonal(half_widths=(0.5, 0.1, 0.0625)),
    Stripe(columns=(0, 2, 5)),
    MultiDiagonal(half_widths=(0.25,), everywhere=True, by_place=True),
    Full(),
    Skip(),
    Online(density=0.4),
    Stripe(columns=(1,)),
    MultiDiagonal(half_widths=(1 / 3,), everywhere=True),
    Stripe(columns=(0, 2, 5)),
)


def plan_of(target: Any, **changes: Any) -> PatternPlan:
    """A plan in two parts of the run, with the modes of PATTERNS in turn."""
    fingerprint = Fingerprint.of(target, steps=4)
    patterns = cycle(PATTERNS)
    buckets = tuple(
        tuple(
            tuple(PlannedHead(pattern=next(patterns), error=0.1 / (i + 1)) for i in range(heads))
            for heads in fingerprint.heads
        )
        for _ in range(2)
    )
    table = PatternTable(
        **{
            "grid": GRID,
            "block_size": BLOCK,
            "starts": (0.25, 0.6),
            "buckets": buckets,
            "density": 0.3,
            **changes,
        }
    )
    return PatternPlan(table=table, fingerprint=fingerprint, evidence=EVIDENCE)


EVIDENCE = Evidence(
    model="somebody/tiny-wan",
    prompts=("a red circle", 'a "blue" ring, ein großer Kreis'),
    seeds=(0, 7),
    budget="density",
    target=0.3,
    price=0.5,
    epsilon=1.0,
    cost_source="FLOPs",
    density=0.475,
    attention_share=0.6,
    speedup=1.25,
    psnr=31.5,
    device="cpu",
    dtype="float32",
    versions={"torch": "2.13"},
    command="sparsediff search MODEL --density 0.3",
)


def with_heads(table: PatternTable, change: Callable[[PlannedHead], PlannedHead]) -> PatternTable:
    """A table with every head replaced by what `change` makes of it."""
    buckets = tuple(
        tuple(tuple(change(head) for head in heads) for heads in bucket) for bucket in table.buckets
    )
    return replace(table, buckets=buckets)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the values of a saved plan.json in place."""
    path = folder / "plan.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))
