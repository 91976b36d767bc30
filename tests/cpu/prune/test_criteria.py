"""Criteria: scores by hand, planted units found, the same twice, and one interface for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import wan
from toy_structures import ToyModel, hooks, toy_subject

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.choice import choose
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.criteria.magnitude import Magnitude
from sparsediff.prune.criteria.owl import OWL, density_shifts, outlier_share
from sparsediff.prune.criteria.random_units import RandomUnits
from sparsediff.prune.criteria.registry import CRITERIA, criterion_of
from sparsediff.prune.criteria.wanda import Wanda
from sparsediff.prune.structures import Cut, Structure, structures_of
from sparsediff.prune.subject import Subject

ONES = torch.ones(1, 3, 2)
# Two updates by what the gates do alone, so that logits of one layer differ.
SHORT = {
    **{"iterations": 2, "accumulation": 1, "steps": 1, "warmup_iterations": 0},
    **{"initial_logit": 0.0, "beta": 0.0},
}
OPTIONS: dict[str, dict[str, Any]] = {"ecodiff": SHORT, "fisher": {"steps": 1, "fisher_draws": 2}}


@torch.no_grad()
def by_hand() -> ToyModel:
    """Two neurons; what `down` reads is 1 and 4 where all tokens are 1."""
    model = ToyModel(layers=1, units=2)
    model.up[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    model.down[0].weight.copy_(torch.tensor([[2.0, -2.0], [0.0, 1.0]]))
    return model


def values(criterion: Criterion, model: ToyModel, key: str = "ffn/ff.0") -> list[float]:
    found: list[float] = criterion.scores(toy_subject(model, ONES)).values[key].tolist()
    return found


def test_magnitude_by_hand() -> None:
    """Norms sqrt(1 + 4) and sqrt(16 + 4 + 1), over their mean."""
    a, b = 5**0.5, 21**0.5
    assert values(Magnitude(), by_hand()) == pytest.approx([2 * a / (a + b), 2 * b / (a + b)])


def test_wanda_by_hand() -> None:
    """|W| norm is [[2, 8], [0, 4]]: rows' shares [.2, .8] and [0, 1], sums 2 and 12."""
    assert values(Wanda(), by_hand()) == pytest.approx([0.2, 1.8])
    assert values(Wanda(per_row=False), by_hand()) == pytest.approx([2 / 7, 12 / 7])


def test_scores_ignore_a_layers_scale() -> None:
    model, larger = by_hand(), by_hand()
    for p in larger.parameters():
        p.data *= 3
    for criterion in (Magnitude(), Wanda(), Wanda(per_row=False)):
        assert values(criterion, larger) == pytest.approx(values(criterion, model))


@torch.no_grad()
def test_a_unit_that_only_its_activations_tell_is_found_by_wanda() -> None:
    """Unit 1 has the smallest weights of all, but reads the feature that is large."""
    model = ToyModel(layers=1, units=4)
    model.up[0].weight.copy_(torch.tensor([[0.5, 0.0], [0.0, 0.4], [0.5, 0.0], [0.5, 0.0]]))
    model.down[0].weight.copy_(torch.full((2, 4), 0.5))
    model.down[0].weight[:, 1] = 0.4
    subject = toy_subject(model, torch.tensor([[[1.0, 100.0]]]))
    structures = subject.structures
    kept = {
        name: choose(criterion_of(name).scores(subject), structures, ratio=0.75).kept["ffn/ff.0"]
        for name in ("magnitude", "wanda")
    }
    assert kept["wanda"].tolist() == [False, True, False, False]
    assert not bool(kept["magnitude"][1])


def test_heads_read_the_places_that_are_theirs() -> None:
    """Two heads of width 2 behind a segment of 1 place: rows 0-1 and 2-3, columns 1-2 and 3-4."""
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(1, 4), "o": torch.nn.Linear(5, 1)})
    model["q"].weight.data = torch.tensor([[1.0], [1.0], [2.0], [2.0]])
    model["o"].weight.data = torch.tensor([[9.0, 1.0, 1.0, 2.0, 2.0]])
    cuts = (
        Cut(module="q", side="out", width=2),
        Cut(module="o", side="in", width=2, start=1),
    )
    one = Structure(kind="heads", path="attn", units=2, cuts=cuts)
    metric = Magnitude().metric(model, one, None)
    assert metric.tolist() == [[1, 1, 1, 1], [2, 2, 2, 2]]


def test_owl_gives_layers_with_outliers_more() -> None:
    """Ten equal weights and one of 100: of 11 metrics one is more than 7 times the mean 10."""
    assert outlier_share(torch.tensor([[1.0] * 10 + [100.0]]), 7) == pytest.approx(1 / 11)
    assert density_shifts([0.1, 0.3, 0.2], [4, 4, 4], 0.08) == pytest.approx([-0.08, 0.08, 0.0])
    # Weighted by units: 30 that keep 0.04 more than the mean, 10 that keep 0.12 less.
    assert density_shifts([0.3, 0.1], [30, 10], 0.08) == pytest.approx([0.04, -0.12])
    assert density_shifts([0.2, 0.2], [1, 2], 0.08) == [0.0, 0.0]
    model = ToyModel(units=50)
    with torch.no_grad():
        model.up[1].weight[0] = 100.0
        for layer in (*model.up, *model.down):
            layer.weight.clamp_(min=0.1)
    scores = OWL(base="magnitude").scores(toy_subject(model))
    assert scores.shifts == pytest.approx({"ffn/ff.0": -0.08, "ffn/ff.1": 0.08})
    subject = toy_subject(model)
    kept = choose(scores, subject.structures, ratio=0.5, scope=OWL.scope)
    assert [int(stay.sum()) for stay in kept.kept.values()] == [21, 29]


def test_owl_scores_as_its_base() -> None:
    model = by_hand()
    assert values(OWL(), model) == values(Wanda(), model)
    assert values(OWL(base="magnitude"), model) == values(Magnitude(), model)
    assert OWL().needs_prompts
    assert not OWL(base="magnitude").needs_prompts


def test_lots_depend_on_seed_and_layer_only() -> None:
    model = ToyModel()
    whole = RandomUnits(seed=1).scores(toy_subject(model)).values
    one = RandomUnits(seed=1).scores(
        toy_subject(model, structures=toy_subject(model).structures[1:])
    )
    assert torch.equal(one.values["ffn/ff.1"], whole["ffn/ff.1"])
    assert not torch.equal(whole["ffn/ff.0"], whole["ffn/ff.1"])
    other = RandomUnits(seed=2).scores(toy_subject(model)).values
    assert not torch.equal(other["ffn/ff.0"], whole["ffn/ff.0"])


@pytest.mark.parametrize("name", [*CRITERIA])
def test_on_a_real_pipeline(name: str, tmp_path: Path) -> None:
    """Every criterion: the same twice, the model untouched, masks that fit."""
    pipe = wan(layers=2)
    model = pipe.transformer
    criterion = criterion_of(name, OPTIONS.get(name, {}))
    told: list[tuple[int, int]] = []
    subject = Subject(
        model=model,
        structures=structures_of(model),
        pipe=pipe if criterion.needs_prompts else None,
        prompts=("a red circle", "a blue box") if name == "fisher" else ("a red circle",),
        call={
            **{"height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16},
            **{"num_inference_steps": 2, "guidance_scale": 4.0},
        },
        progress=lambda *rounds: told.append(rounds),
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = criterion.scores(replace(subject, folder=tmp_path / "first"))
    second = criterion.scores(replace(subject, folder=tmp_path / "second"))
    rounds = [(1, 1)] if name in ("wanda", "owl") else [(1, 2), (2, 2)]
    assert told == (rounds * 2 if criterion.needs_prompts else [])
    for one in subject.structures:
        assert torch.equal(first.values[one.key], second.values[one.key])
        assert len(set(first.values[one.key].tolist())) > 1  # it tells units apart
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert hooks(model) == 0
    choose(first, subject.structures, ratio=0.5, scope=criterion.scope).check(subject.structures)


def test_blocks() -> None:
    pipe = wan(layers=2)
    blocks = structures_of(pipe.transformer, ("blocks",))
    for p in pipe.transformer.blocks[0].parameters():
        p.data *= 0.1
    subject = Subject(model=pipe.transformer, structures=blocks, pipe=pipe, prompts=("a",))
    kept = choose(Magnitude().scores(subject), blocks, ratio=0.5)
    assert [bool(kept.kept[one.key]) for one in blocks] == [False, True]
    for criterion in (Wanda(), OWL()):
        with pytest.raises(SparseError, match="heads and neurons, not blocks"):
            criterion.scores(subject)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wunda", {}, "Did you mean 'wanda'"),
        ("wanda", {"per_rows": True}, "Did you mean 'per_row'"),
        ("magnitude", {"seed": 1}, "has no option 'seed'; it has none"),
        ("wanda", {"per_row": 1}, "per_row=1"),
        ("owl", {"base": "random"}, "base='random'"),
        ("owl", {"outlier": 0.0}, "outlier=0.0"),
        ("owl", {"spread": 0.6}, "spread=0.6"),
        ("owl", {"step_weights": "cosine"}, "step_weights='cosine'"),
        ("ecodiff", {"step": 4}, "Did you mean 'steps'"),
        ("ecodiff", {"beta": -1.0}, "beta"),
        ("ecodiff", {"start": "wanda"}, "start='wanda'"),
        ("fisher", {"fisher_draws": 0}, "fisher_draws"),
        ("fisher", {"fisher_draw": 8}, "Did you mean 'fisher_draws'"),
    ],
)
def test_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparseError, match=message):
        criterion_of(name, options)


@pytest.mark.parametrize("name", [*CRITERIA])
def test_options_are_what_is_taken_and_written(name: str) -> None:
    options = CRITERIA[name].options()
    criterion = criterion_of(name, options)
    assert criterion == criterion_of(name)
    assert criterion.to_dict().items() >= {"name": name, **options}.items()


def test_ecodiff_needs_a_place_and_the_pipelines_model(tmp_path: Path) -> None:
    pipe = wan(layers=1)
    structures = structures_of(pipe.transformer)
    subject = Subject(model=pipe.transformer, structures=structures, pipe=pipe, prompts=("a",))
    with pytest.raises(SparseError, match="the subject has none"):
        criterion_of("ecodiff").scores(subject)
    other = replace(subject, model=wan(layers=1).transformer, folder=tmp_path)
    for name in ("ecodiff", "fisher"):
        with pytest.raises(
            SparseError, match=f"is not the model of its pipeline.* that {name} runs"
        ):
            criterion_of(name).scores(other)
    with pytest.raises(SparseError, match="ecodiff needs prompts"):
        criterion_of("ecodiff").scores(replace(subject, prompts=(), folder=tmp_path))


def test_wanda_without_a_pipeline_is_refused() -> None:
    with pytest.raises(SparseError, match="wanda looks at the model while its pipeline runs"):
        Wanda().scores(toy_subject(ToyModel()))
