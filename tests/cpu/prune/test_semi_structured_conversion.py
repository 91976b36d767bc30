"""2:4 layers: refused where they cannot run, made only where a measurement says that they pay.

No GPU here: a stand-in kernel and a clock of its own decide what is fast.
"""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.conversion import convert_where_faster
from sparsediff.prune.semi_structured.layers import masked_layers
from sparsediff.prune.semi_structured.one_shot import magnitude_masks
from sparsediff.prune.semi_structured.sparse_kernel import DTYPES, TorchKernel
from sparsediff.prune.semi_structured.token_counts import counted_tokens
from sparsediff.prune.semi_structured.xformers_kernel import FlatLinear, XformersKernel


class HandClock:
    """Moves only when a layer says how long it took."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class StandIn(nn.Linear):
    """A dense layer that claims to be a 2:4 layer."""


class StandInKernel:
    """Takes ``seconds[inputs]`` for a call, one after another; the dense layers take 1."""

    name = "stand-in"

    def __init__(self, clock: HandClock, seconds: dict[int, list[float]]) -> None:
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def unavailable(self, device: torch.device) -> str | None:
        return None

    def misfit(self, layer: nn.Linear) -> str | None:
        return "too small" if layer.in_features < 16 else None

    def converted(self, layer: nn.Linear) -> nn.Module:
        made = copy.deepcopy(layer)
        made.__class__ = StandIn
        made._forward_hooks.clear()
        made.register_forward_hook(self._took)
        return made

    def _took(self, layer: nn.Linear, x: object, y: object) -> None:
        times = self.seconds[layer.in_features]
        self.clock.now += times[self.calls % len(times)]
        self.calls += 1


def masked_model(clock: HandClock | None = None) -> nn.Sequential:
    """Layers of 32, 16, 16 and 8 inputs with 2:4 masks, each taking a second."""
    torch.manual_seed(0)
    sizes = [32, 16, 16, 8, 4]
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))
    model = model.to(torch.bfloat16).eval()
    magnitude_masks(masked_layers(model, ["*"])).apply(model)
    if clock is not None:

        def took(layer: object, x: object, y: object) -> None:
            clock.now += 1.0

        for layer in model:
            layer.register_forward_hook(took)
    return model


TOKENS = {"0": 64, "1": 64, "2": 64, "3": 64}


def test_layers_are_converted_where_that_is_faster() -> None:
    clock = HandClock()
    model = masked_model(clock)
    x = torch.randn(5, 32).to(torch.bfloat16)
    before = model(x)
    kernel = StandInKernel(clock, {32: [0.5], 16: [1.25]})
    record = convert_where_faster(model, TOKENS, kernel=kernel, clock=clock)
    assert [type(layer) for layer in model] == [StandIn, nn.Linear, nn.Linear, nn.Linear]
    assert record.converted == ("0",)
    assert record.speeds["0"].share == 0.5
    assert record.speeds["0"].dense_seconds == 1.0
    assert record.speeds["0"].won == 1
    assert "1.25 of the dense time" in record.dense["1"]
    assert record.dense["3"] == "too small"
    assert torch.equal(model(x), before)


def test_equal_shapes_are_timed_once() -> None:
    clock = HandClock()
    model, kernel = masked_model(clock), StandInKernel(clock, {16: [0.5]})
    record = convert_where_faster(model, {"1": 64, "2": 8}, kernel=kernel, clock=clock)
    assert [one.shape.tokens for one in record.speeds.values()] == [64, 8]
    calls, model = kernel.calls, masked_model(clock)
    model[2] = copy.deepcopy(model[1])
    kernel.calls = 0
    record = convert_where_faster(model, {"1": 64, "2": 64}, kernel=kernel, clock=clock)
    assert record.speeds["1"] is record.speeds["2"]
    assert kernel.calls < calls


def test_a_layer_that_wins_too_seldom_stays_dense() -> None:
    """Faster in two of three rounds, and in the median: that is how chance looks."""
    clock = HandClock()
    model, kernel = masked_model(clock), StandInKernel(clock, {32: [0.9, 0.9, 1.2]})
    record = convert_where_faster(model, {"0": 64}, kernel=kernel, clock=clock)
    speed = record.speeds["0"]
    assert speed.share == pytest.approx(0.9)
    assert speed.won == pytest.approx(2 / 3, abs=0.02)
    assert not speed.pays
    assert type(model[0]) is nn.Linear


def test_a_kernel_that_loses_values_is_not_used() -> None:
    class Losing(StandInKernel):
        def converted(self, layer: nn.Linear) -> nn.Module:
            made = super().converted(layer)
            weight: Tensor = made.weight  # type: ignore[assignment]
            place = weight[3].abs().argmax()
            weight.data[3, place] *= 1 + 2**-7  # one value, by its last bit
            return made

    clock = HandClock()
    model, kernel = masked_model(clock), Losing(clock, {32: [0.5]})
    record = convert_where_faster(model, {"0": 64}, kernel=kernel, clock=clock)
    assert record.dense == {"0": "the kernel of stand-in loses some of its values"}
    assert record.converted == ()
    assert record.speeds == {}


def test_a_kernel_that_fails_leaves_the_layer_dense() -> None:
    class Failing(StandInKernel):
        def converted(self, layer: nn.Linear) -> nn.Module:
            raise RuntimeError("no such algorithm")

    clock = HandClock()
    model = masked_model(clock)
    record = convert_where_faster(model, {"0": 64}, kernel=Failing(clock, {}), clock=clock)
    assert record.dense == {"0": "the kernel of stand-in fails: no such algorithm"}


def test_the_record_says_it_all(tmp_path: Path) -> None:
    clock = HandClock()
    model, kernel = masked_model(clock), StandInKernel(clock, {32: [0.5], 16: [1.25]})
    record = convert_where_faster(model, TOKENS, kernel=kernel, clock=clock)
    record.save(tmp_path / "conversion.json")
    plain = json.loads((tmp_path / "conversion.json").read_text())
    assert plain["schema"] == "sparsediff.semi-structured-conversion/1"
    assert plain["kernel"] == "stand-in"
    assert plain["versions"]["torch"] == torch.__version__
    assert plain["converted"] == ["0"]
    assert set(plain["dense"]) == {"1", "2", "3"}
    speed = plain["speeds"]["0"]
    assert speed["shape"] == {
        "tokens": 64,
        "inputs": 32,
        "outputs": 16,
        "dtype": "bfloat16",
        "bias": True,
    }
    assert (speed["share"], speed["pays"]) == (0.5, True)
    lines = record.words().splitlines()
    assert lines[0].startswith("1 of 4 layers are 2:4 layers now")
    assert len(lines) == 5


@pytest.mark.parametrize("kernel", [TorchKernel(), XformersKernel()], ids=lambda one: one.name)
def test_conversion_is_refused_on_a_cpu(kernel: TorchKernel | XformersKernel) -> None:
    model = masked_model()
    with pytest.raises(
        SparseError, match="the model is on cpu, and 2:4 weights are faster on NVIDIA"
    ):
        convert_where_faster(model, TOKENS, kernel=kernel)
    assert all(type(layer) is nn.Linear for layer in model)


def test_old_gpus_and_missing_libraries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda one: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda one: (7, 5))
    assert "Old GPU has no sparse tensor cores" in str(TorchKernel().unavailable(device))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda one: (8, 0))
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: False)
    assert "no cuSPARSELt" in str(TorchKernel().unavailable(device))
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: True)
    assert TorchKernel().unavailable(device) is None


def test_limits_are_torchs_own() -> None:
    limits = torch.sparse.SparseSemiStructuredTensorCUSPARSELT._DTYPE_SHAPE_CONSTRAINTS
    for dtype in DTYPES:
        rows, columns = limits[dtype].sparse_min_rows, limits[dtype].sparse_min_cols
        kernel = TorchKernel()
        assert kernel.misfit(nn.Linear(columns, rows, dtype=dtype)) is None
        assert "no multiple" in str(kernel.misfit(nn.Linear(columns // 2, rows, dtype=dtype)))
        assert "no multiple" in str(kernel.misfit(nn.Linear(columns, rows // 2, dtype=dtype)))
    with pytest.raises(RuntimeError, match="Only CUDA tensors"):
        TorchKernel().converted(nn.Linear(64, 64, dtype=torch.bfloat16))


def test_weights_that_are_not_two_of_four_are_refused() -> None:
    clock = HandClock()
    model, kernel = masked_model(clock), StandInKernel(clock, {32: [0.5]})
    weight: Tensor = model[0].weight.data  # type: ignore[assignment]
    weight[2, 4:8] = 1
    with pytest.raises(SparseError, match="0 has 1 groups of four inputs with more than two"):
        convert_where_faster(model, {"0": 64}, kernel=kernel, clock=clock)


def test_other_wrong_inputs_are_refused() -> None:
    clock = HandClock()
    model, kernel = masked_model(clock), StandInKernel(clock, {32: [0.5]})
    with pytest.raises(SparseError, match="tokens is empty"):
        convert_where_faster(model, {}, kernel=kernel)
    with pytest.raises(SparseError, match="has no layer '9'"):
        convert_where_faster(model, {"9": 1}, kernel=kernel)
    with pytest.raises(SparseError, match="whole number"):
        convert_where_faster(model, {"0": 0}, kernel=kernel)
    with pytest.raises(SparseError, match="compute in float16 or bfloat16"):
        convert_where_faster(model.float(), {"0": 64}, kernel=kernel)


def test_xformers_needs_both_ways() -> None:
    layer = nn.Linear(64, 64, dtype=torch.bfloat16)
    magnitude_masks({"": layer}).apply(layer)
    assert "along outputs too" in str(XformersKernel().misfit(layer))
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0::2, 0::2] = 1
    assert XformersKernel().misfit(layer) is None
    assert "no multiple of [64, 64]" in str(XformersKernel().misfit(nn.Linear(32, 64)))


def test_flat_linear_is_linear() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(3, 5, 8)
    flat = FlatLinear(layer.weight.detach(), layer.bias)
    torch.testing.assert_close(flat(x), layer(x))


def test_tokens_are_those_of_most_calls() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(4, 4))
    layers = {str(n): layer for n, layer in enumerate(model[:2])} | {"2": nn.Linear(4, 4)}
    with counted_tokens(layers) as tokens:
        for size in ((2, 7, 8), (2, 7, 8), (1, 99, 8)):
            model[:2](torch.zeros(size))
    assert tokens == {"0": 14, "1": 14}
    with counted_tokens(layers) as tokens:
        model(torch.zeros(3, 8))
        model(torch.zeros(5, 8))
    assert tokens == {"0": 5, "1": 5}
    assert not any(layer._forward_pre_hooks for layer in model)
