"""Dense kernels by name: what runs on a CPU runs, everything else says why not."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sparsediff.kernels import BackendError, SparseError, dense_kernels

Q, K, V = (
    torch.randn(2, n, 3, 16, generator=torch.Generator().manual_seed(n)) for n in (50, 70, 71)
)
V = V[:, :70]


def right() -> torch.Tensor:
    q, k, v = (x.transpose(1, 2) for x in (Q, K, V))
    return F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2)


def test_flash() -> None:
    out = dense_kernels.dense_attention("flash", Q, K, V, scale=0.3)
    assert torch.allclose(out, right(), atol=1e-5)


def test_reasons_on_a_cpu() -> None:
    found = {kernel.name: kernel.reasons(Q, K, V) for kernel in dense_kernels.dense_kernels()}
    assert list(found) == ["cudnn", "flash", "flex", "efficient", "xformers"]
    assert found["flash"] == []
    assert all(reasons for name, reasons in found.items() if name != "flash")
    with pytest.raises(BackendError, match="torch has no cudnn attention on CPU"):
        dense_kernels.dense_attention("cudnn", Q, K, V)
    meta = [x.to("meta") for x in (Q, K, V)]
    assert "meta" in dense_kernels.find_dense_kernel("flash").reasons(*meta)[0]


def test_unknown_name() -> None:
    with pytest.raises(SparseError, match="choose among cudnn, flash"):
        dense_kernels.find_dense_kernel("best")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_computes_dense_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []

    def compile_(function: Any, **options: Any) -> Any:
        if "dynamic" in options:  # eager FlexAttention compiles a part of itself
            kinds.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    dense_kernels._compiled_flex.cache_clear()
    for q in (Q, Q, Q[:1].expand(2, -1, -1, -1)):
        out = dense_kernels._flex(q, K, V, 0.3)
    assert kinds == [{"dynamic": False, "fullgraph": True}] * 2  # one per kind of call
    dense_kernels._compiled_flex.cache_clear()
    assert out.shape == Q.shape
    assert torch.allclose(dense_kernels._flex(Q, K, V, 0.3), right(), atol=1e-5)
    dense_kernels._compiled_flex.cache_clear()


class FakeQuery:
    """Enough of a CUDA tensor to ask for reasons."""

    device = types.SimpleNamespace(type="cuda")


def operators(*reasons: list[str]) -> Any:
    kinds = [types.SimpleNamespace(not_supported_reasons=lambda inputs, r=r: r) for r in reasons]
    fmha = types.SimpleNamespace(ALL_FW_OPS=kinds, Inputs=lambda **tensors: tensors)
    return types.SimpleNamespace(
        fmha=fmha, memory_efficient_attention=lambda q, k, v, scale: (q, scale)
    )


def test_xformers_is_asked_for_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def reasons_with(ops: Any) -> list[str]:
        monkeypatch.setattr(dense_kernels, "_xformers_ops", lambda: ops)
        query: Any = FakeQuery()
        return dense_kernels.find_dense_kernel("xformers").reasons(query, query, query)

    assert "not installed" in reasons_with(None)[0]
    assert reasons_with(operators(["too old"], [])) == []
    assert reasons_with(operators(["too old"], ["no"])) == ["none of its 2 kernels: too old"]
    assert reasons_with(types.SimpleNamespace(fmha=None)) == []
    monkeypatch.setattr(dense_kernels, "_xformers_ops", operators)
    assert dense_kernels._xformers(Q, K, V, 0.3) == (Q, 0.3)


def test_broken_xformers_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("built for another CUDA")

    find = dense_kernels._xformers_ops.__wrapped__
    monkeypatch.setattr(dense_kernels.importlib.util, "find_spec", lambda name: None)
    assert find() is None
    monkeypatch.setattr(dense_kernels.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(dense_kernels.importlib, "import_module", broken)
    assert find() is None
    monkeypatch.setattr(dense_kernels.importlib, "import_module", lambda name: operators([]))
    assert hasattr(find(), "memory_efficient_attention")
