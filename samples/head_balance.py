"""How evenly do processes that divide the heads of a plan share its work?

With `ulysses_degree` the processes wait, after every attention call, for the one whose heads compute
most. Prints its blocks over the mean of all, over the sparse part of a run: with the heads in the
model's order, and as sparsediff divides them; 1 is best. Nothing is run.

    python samples/head_balance.py [PLAN ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from sparsediff import PatternPlan
from sparsediff.parallel.head_shares import balanced_shares, even_shares, imbalance
from sparsediff.search.patterns.head_costs import head_costs

PLANS = Path(__file__).parent / "plans"


def main(plans: list[str]) -> None:
    """Print a table of plans and numbers of processes."""
    print("plan | heads | processes | in order | as divided")
    for name in plans:
        table = PatternPlan.from_pretrained(name).table
        layers = [head_costs(table, layer) for layer in range(len(table.heads))]
        for processes in range(2, max(table.heads)):
            if any(heads % processes for heads in table.heads):
                continue
            order, divided = [], []
            for heads, costs in zip(table.heads, layers, strict=True):
                order += [(part, even_shares(heads, processes)) for part in costs]
                divided += [(part, balanced_shares(costs, processes)) for part in costs]
            figures = f"{imbalance(order):.3f} | {imbalance(divided):.3f}"
            print(f"{Path(name).name} | {max(table.heads)} | {processes} | {figures}")


if __name__ == "__main__":
    main(sys.argv[1:] or sorted(str(path) for path in PLANS.iterdir()))
