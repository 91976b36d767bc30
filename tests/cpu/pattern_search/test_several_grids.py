"""A plan holds the patterns of one token grid: models whose calls are on several are refused."""

from __future__ import annotations

import pytest
from tiny_pipelines import FAMILIES

import sparsediff
from sparsediff.kernels.errors import SparseError
from sparsediff.search.offline.profile import Profiling


@pytest.mark.parametrize("name", ["sd3", "mochi", "lumina2"])
def test_layers_or_branches_on_other_grids_are_refused_in_the_first_forwards(name: str) -> None:
    """SD3.5's second attention has no text; Mochi's and Lumina's text is as long as each prompt."""
    family = FAMILIES[name]
    pipe = family.build()
    method = Profiling(block_size=8)
    with sparsediff.sparse_attention(pipe, method, gate=False) as session:
        with pytest.raises(SparseError, match=r"one token grid.*and on TokenGrid"):
            family.run(pipe)
        assert session.report().sparse_calls == 0
    assert session.progress.step.index == 0


def test_one_grid_is_profiled() -> None:
    family = FAMILIES["flux"]
    pipe = family.build()
    method = Profiling(block_size=8)
    with sparsediff.sparse_attention(pipe, method, gate=False):
        family.run(pipe)
    assert len(method.record.layers) == family.layers
