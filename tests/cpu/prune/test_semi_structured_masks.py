"""2:4 masks: the candidates, one-shot choices, putting masks to work."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from tiny_pipelines import wan_transformer
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError
from sparsediff.prune.layer_inputs import LayerInputs
from sparsediff.prune.semi_structured.candidates import (
    CANDIDATES,
    best_choices,
    choices_of,
    crowded_groups,
    groups,
    kept_of,
)
from sparsediff.prune.semi_structured.layers import masked_layers
from sparsediff.prune.semi_structured.one_shot import magnitude_masks, wanda_masks
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen(squares: Tensor) -> LayerInputs:
    return LayerInputs(squares={"": squares.double()}, tokens={"": 1.0})


def two_layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 8))


def test_candidates_are_all_pairs_of_four() -> None:
    kept = {tuple(row.nonzero().flatten().tolist()) for row in CANDIDATES}
    assert kept == set(combinations(range(4), 2))
    assert len(CANDIDATES) == 6


def test_choices_and_masks_are_inverse() -> None:
    choices = torch.arange(12, dtype=torch.uint8).view(2, 6) % 6
    kept = kept_of(choices)
    assert kept.shape == (2, 24)
    assert torch.equal(choices_of(groups(kept)), choices)


def test_groups_that_keep_another_number_are_refused() -> None:
    with pytest.raises(SparseError, match="2 groups of four do not keep exactly two"):
        choices_of(torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool())


def test_best_choices_keep_the_two_largest() -> None:
    """Against every pair by brute force, and with sums that float32 cannot tell apart."""
    scores = normal(200, 4).abs()
    pairs = torch.stack([scores.double()[:, row].sum(dim=1) for row in CANDIDATES], dim=1)
    assert torch.equal(best_choices(scores).long(), pairs.argmax(dim=1))
    close = torch.tensor([[1.0, 1e-9, 2e-9, 0.0]])
    assert CANDIDATES[int(best_choices(close)[0])].tolist() == [True, False, True, False]


def test_of_equal_scores_the_earlier_stay() -> None:
    assert int(best_choices(torch.ones(1, 4))[0]) == 0


@pytest.mark.parametrize("shape", [(2, 6), (0, 4), (4,)])
def test_weights_without_groups_of_four_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SparseError, match="groups of four"):
        groups(torch.zeros(shape))


def test_magnitude_keeps_exactly_two_of_every_four() -> None:
    layers = masked_layers(two_layers(), ["*"])
    masks = magnitude_masks(layers)
    for path, layer in layers.items():
        kept = groups(masks.kept(path))
        sizes = groups(layer.weight.detach()).abs()
        assert torch.equal(kept.sum(dim=-1), torch.full(kept.shape[:2], 2))
        least_kept = sizes.masked_fill(~kept, float("inf")).amin(dim=-1)
        assert bool((least_kept >= sizes.masked_fill(kept, 0).amax(dim=-1)).all())


def test_wanda_weighs_by_the_size_of_inputs() -> None:
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    masks = wanda_masks({"": layer}, seen(torch.tensor([1.0, 0.0, 1.0, 25.0])))
    # |W| sqrt(squares) is 4, 0, 2, 5.
    assert masks.kept("").tolist() == [[True, False, False, True]]


def test_wanda_refuses_inputs_of_other_layers() -> None:
    with pytest.raises(SparseError, match="calibration has nothing"):
        wanda_masks({"other": nn.Linear(4, 1)}, seen(torch.ones(4)))
    with pytest.raises(SparseError, match=r"calibration has sums of \[3\]"):
        wanda_masks({"": nn.Linear(4, 1)}, seen(torch.ones(3)))


def test_applied_to_a_copy() -> None:
    model = two_layers()
    before = copy.deepcopy(model.state_dict())
    masks = magnitude_masks(masked_layers(model, ["0"]))
    masked = masks.applied(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    kept = masks.kept("0")
    assert torch.equal(masked[0].weight, torch.where(kept, before["0.weight"], 0))  # type: ignore[index]
    assert crowded_groups(masked[0].weight) == 0  # type: ignore[index]
    assert torch.equal(masked[2].weight, before["2.weight"])  # type: ignore[index]


def test_masks_of_another_model_are_refused() -> None:
    masks = magnitude_masks(masked_layers(two_layers(), ["*"]))
    with pytest.raises(SparseError, match="masks of another model"):
        masks.applied(nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 8)))
    with pytest.raises(SparseError, match="has no layer"):
        masks.applied(nn.Sequential(nn.Linear(16, 12)))


@pytest.mark.parametrize(
    "choices",
    [torch.zeros(2, 2), torch.full((2, 2), 6, dtype=torch.uint8), torch.zeros(2).byte(), None],
)
def test_values_that_are_no_choices_are_refused(choices: Tensor | None) -> None:
    with pytest.raises(SparseError, match="choices"):
        SemiStructuredMasks(choices={"a": choices})  # type: ignore[dict-item]


def test_feed_forward_layers_by_default() -> None:
    model = wan_transformer(layers=2)
    ends = ["ffn.net.0.proj", "ffn.net.2"]
    assert [*masked_layers(model)] == [f"blocks.{i}.{end}" for i in range(2) for end in ends]


def test_layers_by_pattern() -> None:
    model = wan_transformer(layers=2)
    assert [*masked_layers(model, ["blocks.1.attn*.to_q"])] == [
        "blocks.1.attn1.to_q",
        "blocks.1.attn2.to_q",
    ]
    with pytest.raises(SparseError, match="No linear layer"):
        masked_layers(model, ["nothing"])


def test_layers_that_cannot_be_masked_are_refused() -> None:
    with pytest.raises(SparseError, match="6 inputs, which 4 does not divide"):
        masked_layers(nn.Sequential(nn.Linear(6, 4)), ["*"])
    with pytest.raises(UnsupportedModelError, match="not loaded"):
        masked_layers(nn.Sequential(nn.Linear(8, 4, device="meta")), ["*"])

    class Quantised(nn.Linear):
        pass

    with pytest.raises(UnsupportedModelError, match="Quantised"):
        masked_layers(nn.Sequential(Quantised(8, 4)), ["*"])
