"""Plans in the fidelity table: their place in it, and what has none."""

import pytest

from sparsediff.cli.fidelity_plans import planned_methods
from sparsediff.kernels.errors import SparseError
from sparsediff.plans.evidence import Evidence
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.search import PatternTable, PlannedHead, SparseVDiT, TokenGrid
from sparsediff.search.patterns import Diagonal, Online


@pytest.fixture
def folder(sample, tmp_path):
    """Makes the folder of a plan for the sample model with one pattern for all its heads."""
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel.from_pretrained(sample, subfolder="transformer")
    fingerprint = Fingerprint.of(model)

    def make(name, pattern, density):
        heads = tuple((PlannedHead(pattern=pattern),) * count for count in fingerprint.heads)
        table = PatternTable(
            grid=TokenGrid(frames=9, height=16, width=16),
            block_size=64,
            starts=(0.2,),
            buckets=(heads,),
            density=density,
        )
        plan = PatternPlan(table=table, fingerprint=fingerprint, evidence=Evidence())
        plan.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


def test_plans_stand_in_the_column_of_their_density(folder):
    fixed = folder("fixed", Diagonal(half_width=0.1), 0.299)
    online = folder("online", Online(density=0.3), 0.301)
    found = planned_methods([fixed, online], [0.15, 0.3])
    assert list(found) == [("plan", 0.3), ("plan + AdaSpa", 0.3)]
    assert all(isinstance(method, SparseVDiT) for method in found.values())


def test_a_density_that_is_no_column_is_refused(folder):
    plan = folder("fixed", Diagonal(half_width=0.1), 0.2)
    with pytest.raises(SparseError, match=r"density 0\.200.*0\.15, 0\.3"):
        planned_methods([plan], [0.15, 0.3])


def test_two_plans_for_one_place_are_refused(folder):
    plan = folder("fixed", Diagonal(half_width=0.1), 0.3)
    with pytest.raises(SparseError, match="one of each kind"):
        planned_methods([plan, plan], [0.3])
