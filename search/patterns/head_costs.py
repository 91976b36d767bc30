"""What the heads of a planned layer cost against each other, known before anything runs."""

from __future__ import annotations

from sparsediff.search.patterns.pattern_mask import pattern_density
from sparsediff.search.patterns.pattern_table import PatternTable


def head_costs(table: PatternTable, layer: int) -> tuple[tuple[float, ...], ...]:
    """Share of the block pairs that each head of a layer computes, in every bucket of the table.

    On the table's own grid, and times the share of the run that the bucket lasts.
    """
    ends = (*table.starts[1:], 1.0)
    spans = [end - start for start, end in zip(table.starts, ends, strict=True)]
    return tuple(
        tuple(
            span * pattern_density(head.pattern, table.grid, table.block_size)
            for head in bucket[layer]
        )
        for bucket, span in zip(table.buckets, spans, strict=True)
    )
