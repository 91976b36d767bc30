"""A PatternTable as JSON values and back; the columns of stripes are in rows of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Misfit, Reader, wrong
from sparsediff.plans.records import listed, record
from sparsediff.plans.values import flag, number, one_of, optional, whole
from sparsediff.search.patterns.pattern import (
    MODES,
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.pattern_table import PatternTable, PlannedHead
from sparsediff.search.token_grid import TokenGrid

# Far beyond any use, and small enough for a kernel's 32-bit numbers: half_width x tokens of a period.
_FRAMES, _PLACES = 1024, 64
_TOKENS = 10**6

_WIDTH = number(0, _PLACES)

_PATTERNS: dict[str, tuple[type, dict[str, Reader[Any]]]] = {
    "full": (Full, {}),
    "skip": (Skip, {}),
    "diagonal": (Diagonal, {"half_width": number(0, _FRAMES)}),
    "multi-diagonal": (
        MultiDiagonal,
        {"half_widths": listed(_WIDTH, least=1), "everywhere": flag, "by_place": flag},
    ),
    "online": (Online, {"density": number(0, 1, above=True)}),
}

GRID: Reader[TokenGrid] = record(
    TokenGrid,
    {
        "frames": whole(1, _TOKENS),
        "height": whole(1, _TOKENS),
        "width": whole(1, _TOKENS),
        "text_before": whole(0, _TOKENS),
        "text_after": whole(0, _TOKENS),
    },
)

# The fields of a PatternTable but for its buckets, which need the stripes first.
TABLE: dict[str, Reader[Any]] = {
    "grid": GRID,
    "block_size": whole(1, 2**16),
    "starts": listed(number(0, 1, below=True), least=1),
    "density": number(0, 1),
    "dense_layers": whole(0, 10**4),
    "compensate": flag,
}


def rows_of(table: PatternTable) -> dict[Stripe, int]:
    """Every different stripe of a table and its row, in the order in which they come."""
    found: dict[Stripe, int] = {}
    for bucket in table.buckets:
        for heads in bucket:
            for head in heads:
                if isinstance(head.pattern, Stripe):
                    found.setdefault(head.pattern, len(found))
    return found


def head_values(head: PlannedHead, rows: dict[Stripe, int]) -> dict[str, Any]:
    """One head as a JSON object."""
    pattern = head.pattern
    values: dict[str, Any] = {"mode": MODES[type(pattern)]}
    if isinstance(pattern, Stripe):
        values["row"] = rows[pattern]
    else:
        values |= dataclasses.asdict(pattern)
    if head.error is not None:
        values["error"] = head.error
    return values


def buckets_reader(stripes: Sequence[Stripe]) -> Reader[Any]:
    """The reader of a table's buckets, whose stripes are numbers of these rows."""
    readers = {
        mode: record(
            _head(pattern),
            {"mode": one_of(mode), **fields, "error": optional(number(0))},
            may_lack=("error", "everywhere", "by_place"),
        )
        for mode, (pattern, fields) in _PATTERNS.items()
    }
    readers["stripe"] = record(
        lambda mode, row, error=None: PlannedHead(pattern=stripes[row], error=error),
        {"mode": one_of("stripe"), "row": _row(len(stripes)), "error": optional(number(0))},
        may_lack=("error",),
    )

    def head(value: object, path: str) -> PlannedHead:
        if not isinstance(value, dict):
            raise wrong(value, path, "an object")
        if "mode" not in value:
            raise Misfit(f"{path} has no key 'mode'.")
        mode = one_of(*readers)(value["mode"], f"{path}.mode")
        found: PlannedHead = readers[mode](value, path)
        return found

    return listed(listed(listed(head, least=1), least=1), least=1)


def stripes_reader(blocks: int) -> Reader[tuple[Stripe, ...]]:
    """The reader of stripes as lists of block numbers below `blocks`."""
    columns = listed(whole(0, blocks - 1), least=1)

    def stripe(value: object, path: str) -> Stripe:
        found = columns(value, path)
        try:
            return Stripe(columns=found)
        except SparseError as error:
            raise Misfit(f"{path}: {error}") from None

    return listed(stripe, least=1)


def _head(pattern: type) -> Any:
    def build(mode: str, error: float | None = None, **fields: Any) -> PlannedHead:
        return PlannedHead(pattern=pattern(**fields), error=error)

    return build


def _row(rows: int) -> Reader[int]:
    if rows:
        return whole(0, rows - 1)

    def reader(value: object, path: str) -> int:
        raise wrong(value, path, "a plan with tables, and this one has none")

    return reader
