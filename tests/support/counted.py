"""The options that tests share, and what a run did under them."""

from __future__ import annotations

from typing import Any

import sparsediff

# Of four steps the first runs dense; blocks so small that toy pipelines have some to leave out.
OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25, "gate": False}


def calls(target: Any) -> tuple[int, int]:
    """Sparse and dense calls of the last run, none of which may have fallen back."""
    report = sparsediff.sparse_attention_report(target)
    assert report.fallbacks == {}
    return report.sparse_calls, report.dense_calls
