"""Weights set to zero: thresholds by hand, the study's guard, and both shares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy_structures import ToyModel, toy_subject

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.shares import zeroed_share
from sparsediff.prune.subject import Subject
from sparsediff.prune.unstructured import WeightPruning, weight_masks, zeroed


def alone(weight: torch.Tensor) -> Subject:
    """A subject that is one linear layer at path ``0``."""
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0]))
    model[0].weight.data = weight
    return Subject(model=model, structures=())


WEIGHT = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.0, [[1, 1, 1], [1, 1, 1]]),
        (0.1, [[1, 1, 1], [1, 1, 1]]),  # 0.6 weights: the index -1 of the study would take all
        (0.17, [[0, 1, 1], [1, 1, 1]]),
        (0.5, [[0, 0, 0], [1, 1, 1]]),
        (1.0, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_magnitude_by_hand(ratio: float, expected: list[list[int]]) -> None:
    masks = weight_masks(alone(WEIGHT), WeightPruning(ratio=ratio))
    assert masks["0"].int().tolist() == expected


def test_equal_weights_go_together() -> None:
    weight = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    masks = weight_masks(alone(weight), WeightPruning(ratio=0.25))
    assert masks["0"].int().tolist() == [[0, 0, 0, 1]]


def test_wanda_by_hand() -> None:
    """Inputs 1 and 10: in each row the smaller |W| norm goes, though its weight may be larger."""
    model = ToyModel(layers=1, units=2)
    model.up[0].weight.data = torch.tensor([[5.0, 1.0], [20.0, 1.0]])
    subject = toy_subject(model, torch.tensor([[[1.0, 10.0]]]))
    masks = weight_masks(subject, WeightPruning(ratio=0.5, metric="wanda"))
    assert masks["up.0"].int().tolist() == [[0, 1], [1, 0]]
    assert {len(row.nonzero()) for row in masks["down.0"]} == {1}
    plain = weight_masks(subject, WeightPruning(ratio=0.5))
    assert plain["up.0"].int().tolist() == [[1, 0], [1, 0]]


def test_owl_moves_the_layers_shares() -> None:
    """100 weights each; one outlier in the second layer, none in the first: shares .58 and .42."""
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    for layer in model:
        layer.weight.data = torch.linspace(1, 2, 100).view(10, 10)
    model[1].weight.data[9, 9] = 1000.0
    masks = weight_masks(Subject(model=model, structures=()), WeightPruning(ratio=0.5, owl=True))
    assert [int((~stay).sum()) for stay in masks.values()] == [58, 42]


def test_a_copy_is_zeroed_and_both_shares_are_said() -> None:
    """Convolutions stay whole: 50 of 100 linear weights, of 100 + 10 + 90 + 10 parameters."""
    model = nn.Sequential(nn.Linear(10, 10), nn.Conv1d(10, 1, 9), nn.Conv1d(1, 9, 1, bias=False))
    before = [p.clone() for p in model.parameters()]
    masks = weight_masks(Subject(model=model, structures=()), WeightPruning(ratio=0.5))
    assert [*masks] == ["0"]
    pruned = zeroed(model, masks)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert int((pruned[0].weight == 0).sum()) == 50
    assert torch.equal(pruned[0].weight[masks["0"]], model[0].weight[masks["0"]])
    assert all(
        torch.equal(a, b)
        for (name, a), (_, b) in zip(
            pruned.named_parameters(), model.named_parameters(), strict=True
        )
        if name != "0.weight"
    )
    found = zeroed_share(model, masks)
    assert str(found) == "50 of 100 linear weights (50.0 %); 50 of 210 parameters (23.8 %)"


def test_convolutions_if_asked() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Conv2d(2, 2, 3))
    settings = WeightPruning(ratio=0.5, linear_only=False)
    masks = weight_masks(Subject(model=model, structures=()), settings)
    assert {path: int((~stay).sum()) for path, stay in masks.items()} == {"0": 4, "1": 18}
    found = zeroed_share(model, masks)
    assert (found.units[0].part, found.parameters.part) == (4, 22)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.5}, "ratio=1.5"),
        ({"ratio": float("nan")}, "ratio=nan"),
        ({"ratio": 0.5, "metric": "owl"}, "metric='owl'"),
        ({"ratio": 0.5, "metric": "wanda", "linear_only": False}, "set linear_only"),
        ({"ratio": 0.5, "outlier": -1.0}, "outlier=-1.0"),
        ({"ratio": 0.5, "step_weights": "x"}, "step_weights='x'"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SparseError, match=message):
        WeightPruning(**settings)


def test_what_cannot_be_is_refused() -> None:
    half = WeightPruning(ratio=0.5)
    with pytest.raises(SparseError, match="Weights of 0 are not finite"):
        weight_masks(alone(WEIGHT / 0), half)
    with pytest.raises(SparseError, match="no layers that could be pruned"):
        weight_masks(Subject(model=nn.ReLU(), structures=()), half)
    with pytest.raises(SparseError, match="Give the folder of the whole pipeline"):
        weight_masks(alone(WEIGHT), WeightPruning(ratio=0.5, metric="wanda"))
    masks = weight_masks(alone(WEIGHT), half)
    with pytest.raises(SparseError, match=r"mask of 0 is \[2, 3\], the model's weight \[3, 2\]"):
        zeroed(alone(WEIGHT.T).model, masks)
    with pytest.raises(SparseError, match="the model's weight none"):
        zeroed(nn.Sequential(), masks)
