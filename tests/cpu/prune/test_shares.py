"""What masks give up is what cutting takes out, parameter by parameter."""

from __future__ import annotations

import pytest
import torch
from pruned_models import case_of, random_masks

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.shares import GivenUp, Part, given_up


@pytest.mark.parametrize("name", ["wan", "flux", "sd3", "hunyuan_video", "stable_diffusion"])
def test_parameters_are_those_that_cutting_takes(name: str) -> None:
    """Gated and joint layers, norms over heads, biases, layers of two structures, whole blocks."""
    case = case_of(name)
    whole = sum(p.numel() for p in case.model.parameters())
    for seed in range(2):
        masks = random_masks(case.structures, seed)
        found = given_up(case.model, case.structures, masks).parameters
        smaller = remove(case.model, masks)
        assert found.whole == whole
        assert found.part == whole - sum(p.numel() for p in smaller.parameters())


def test_kinds_are_counted_apart() -> None:
    case = case_of("wan")
    heads = [one for one in case.structures if one.kind == "heads"]
    kept = {one.key: torch.ones(one.units, dtype=torch.bool) for one in heads}
    kept[heads[0].key][0] = False
    found = given_up(case.model, case.structures, Masks(kept=kept))
    units = sum(one.units for one in heads)
    assert found.units == (Part(what="heads", part=1, whole=units),)
    assert found.to_dict()["heads"] == {
        "what": "heads",
        "part": 1,
        "whole": units,
        "share": 1 / units,
    }
    with pytest.raises(SparseError, match="no structure 'heads/other'"):
        given_up(case.model, heads, Masks(kept={"heads/other": torch.ones(1, dtype=torch.bool)}))


def test_both_shares_are_said() -> None:
    found = GivenUp(
        units=(Part(what="heads", part=12, whole=72),),
        parameters=Part(what="parameters", part=50, whole=1000),
    )
    assert str(found) == "12 of 72 heads (16.7 %); 50 of 1000 parameters (5.0 %)"
    assert Part(what="heads", part=0, whole=0).share == 0
