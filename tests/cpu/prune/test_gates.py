"""Gates: masks at work in a whole model, for each sample if wanted, with gradients, gone afterwards."""

import pytest
import torch
from pruned_models import case_of

from sparsediff.prune.gates import gated


def _hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


@pytest.mark.parametrize("name", ["cogvideox", "pixart_sigma", "ltx"])
def test_each_sample_of_a_batch_has_a_mask_of_its_own(name):
    case = case_of(name)
    generator = torch.Generator().manual_seed(1)
    values = {one.key: torch.rand(2, one.units, generator=generator) for one in case.structures}
    with gated(case.model, case.structures, values):
        both = case.output(case.model)
    for row in range(2):
        with gated(case.model, case.structures, {key: of[row] for key, of in values.items()}):
            alone = case.output(case.model)
        # float32, the same sums
        assert torch.allclose(both[row], alone[row], rtol=0, atol=1e-5 * float(alone.abs().max()))
        assert not torch.allclose(
            both[1 - row], alone[1 - row], atol=1e-3 * float(alone.abs().max())
        )


def test_every_value_has_a_gradient():
    case = case_of("wan")
    values = {one.key: torch.full((one.units,), 0.5, requires_grad=True) for one in case.structures}
    with gated(case.model, case.structures, values):
        case.model(**case.batch, return_dict=False)[0].square().sum().backward()
    case.model.zero_grad(set_to_none=True)
    assert all(
        value.grad is not None and bool((value.grad != 0).all()) for value in values.values()
    )


def test_a_function_of_values_is_asked_anew_in_every_call():
    case = case_of("wan")
    asked = []

    def values(key):
        asked.append(key)
        return torch.ones({one.key: one.units for one in case.structures}[key])

    with gated(case.model, case.structures, values):
        case.output(case.model)
        once = len(asked)
        case.output(case.model)
    assert set(asked) == {one.key for one in case.structures}
    assert len(asked) == 2 * once


def test_an_error_leaves_no_hook_behind():
    case = case_of("wan")
    with pytest.raises(KeyError), gated(case.model, case.structures, {}):
        raise KeyError
    values = {one.key: torch.ones(one.units) for one in case.structures}
    with pytest.raises(KeyError), gated(case.model, case.structures, values):
        assert _hooks(case.model) > 0
        raise KeyError
    assert _hooks(case.model) == 0
