"""What the heads of a planned layer cost against each other, known before anything runs."""

from __future__ import annotations

from sparsediff.search.patterns.pattern_mask import pattern_density
from sparsediff.search.patterns.pattern_table import PatternTable


def head_costs(table: PatternTable, layer: int) -> tuple[float, ...]:
    """Share of the block pairs that each head of a layer computes, over the sparse part of the run.

    The mean over the table's buckets, each as long as it lasts, on the table's own grid.
    """
    ends = (*table.starts[1:], 1.0)
    spans = [end - start for start, end in zip(table.starts, ends, strict=True)]
    costs = [0.0] * table.heads[layer]
    for bucket, span in zip(table.buckets, spans, strict=True):
        for number, head in enumerate(bucket[layer]):
            density = pattern_density(head.pattern, table.grid, table.block_size)
            costs[number] += density * span / sum(spans)
    return tuple(costs)
