"""Plans in the fidelity table: their place in it, and what has none."""

import pytest
from tiny_pipelines import flux

from sparsediff import fidelity, loading
from sparsediff.cli import main
from sparsediff.cli.fidelity_plans import placed_plans
from sparsediff.kernels.errors import SparseError
from sparsediff.plans.evidence import Evidence
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.search import PatternTable, PlannedHead, SparseVDiT, TokenGrid, Window
from sparsediff.search.patterns.pattern import Diagonal, Online


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
    found = placed_plans([fixed, online], [0.15, 0.3])
    assert list(found) == [("plan", 0.3), ("plan + AdaSpa", 0.3)]
    assert all(isinstance(plan.method(), SparseVDiT) for plan in found.values())


def test_a_density_that_is_no_column_is_refused(folder):
    plan = folder("fixed", Diagonal(half_width=0.1), 0.2)
    with pytest.raises(SparseError, match=r"density 0\.200.*0\.15, 0\.3"):
        placed_plans([plan], [0.15, 0.3])


def test_two_plans_for_one_place_are_refused(folder):
    plan = folder("fixed", Diagonal(half_width=0.1), 0.3)
    with pytest.raises(SparseError, match="one of each kind"):
        placed_plans([plan, plan], [0.3])


def test_plans_run_before_what_always_fits(monkeypatch):
    """A plan that was searched at another size is found out before minutes of other runs."""
    seen = []
    monkeypatch.setattr(fidelity, "_row", lambda name, *_: seen.append(name) or name)
    monkeypatch.setattr(fidelity, "_frames", lambda _: None)
    window = {"window": Window(warmup=0.2)}
    planned = {("plan", 0.3): window["window"]}
    rows = fidelity.measure_fidelity(
        lambda *_: None, ["a"], [0.3], selections=window, planned=planned
    )
    assert seen == ["plan", "window"]
    assert rows == ["window", "plan"]


def test_a_plan_of_another_model_is_refused_before_anything_runs(
    folder, sample, tmp_path, monkeypatch, capsys
):
    plan = folder("fixed", Diagonal(half_width=0.1), 0.3)
    monkeypatch.setattr(loading, "load_pipeline", lambda *_, **__: flux())
    monkeypatch.setattr(fidelity, "measure_fidelity", lambda *_, **__: pytest.fail("ran"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    flags = ["--prompts", str(prompts), "--densities", "0.3", "--plan", plan]
    assert main(["fidelity", sample, *flags]) == 1
    assert "This plan was searched on another model" in capsys.readouterr().err
