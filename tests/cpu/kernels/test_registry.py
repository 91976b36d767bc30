"""Choosing a backend: a named one never falls back, "auto" takes the pinned or the first that can."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import PATH

from sparsediff.kernels import BackendError, BlockMask, backends, block_mass, block_sparse_attention
from sparsediff.kernels.registry import find_backend, fixed_order, ordered_backends

MASK = BlockMask.full(block_size=16, q_len=32, kv_len=32)


def tensors(dtype: torch.dtype = torch.float32, *, grad: bool = False) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    made = [torch.randn(1, 32, 2, 8, generator=noise).to(dtype) for _ in range(3)]
    return [x.requires_grad_(grad) for x in made]


def test_names() -> None:
    assert backends() == ("triton", "cpu", "gather", "fa4", "flex", "reference")
    assert [find_backend(name).name for name in backends()] == list(backends())


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("cpu", ["cpu", "gather", "flex"]),
        ("cuda:1", ["triton", "gather", "fa4", "flex"]),
        ("mps", ["gather", "flex"]),
    ],
)
def test_fixed_order(device: str, names: list[str]) -> None:
    assert [backend.name for backend in fixed_order(torch.device(device))] == names


@pytest.mark.parametrize(
    ("dtype", "grad", "path"),
    [
        (torch.float32, False, PATH["cpu"]),
        (torch.bfloat16, False, PATH["cpu"]),
        (torch.float32, True, "gather"),
        (torch.float64, False, "reference"),
        (torch.float64, True, "reference"),
    ],
    ids=str,
)
def test_auto(dtype: torch.dtype, grad: bool, path: str, ran: list[str]) -> None:
    q, k, v = tensors(dtype, grad=grad)
    block_sparse_attention(q, k, v, MASK)
    block_mass(q, k, torch.zeros(1, 2, 32), block_size=16)
    assert ran == [path, path]


@pytest.mark.parametrize(
    ("backend", "dtype", "grad", "words"),
    [
        ("cpu", torch.float64, False, "torch.float64 .needs float32, bfloat16 or float16"),
        ("cpu", torch.float32, True, "a gradient is needed and this backend has no backward"),
        ("gather", torch.float64, False, "torch.float64"),
        ("flex", torch.float64, False, "torch.float64"),
        ("flex", torch.float32, True, "on CPU FlexAttention has no backward"),
        ("fa4", torch.float32, False, "the tensors are on cpu, not on a CUDA device"),
    ],
)
def test_a_named_backend_never_falls_back(
    backend: str, dtype: torch.dtype, grad: bool, words: str, ran: list[str]
) -> None:
    q, k, v = tensors(dtype, grad=grad)
    with pytest.raises(BackendError, match=f"Backend '{backend}' cannot run .*{words}"):
        block_sparse_attention(q, k, v, MASK, backend=backend)
    assert ran == []


def test_all_reasons_are_given() -> None:
    q, k, v = tensors(torch.float64, grad=True)
    with pytest.raises(BackendError, match=r"float64.*; a gradient"):
        block_sparse_attention(q, k, v, MASK, backend="cpu")


def test_no_grad_mode_needs_no_gradient(ran: list[str]) -> None:
    q, k, v = tensors(grad=True)
    with torch.no_grad():
        block_sparse_attention(q, k, v, MASK)
    assert ran == [PATH["cpu"]]


def test_auto_without_any_usable_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ordered_backends():
        monkeypatch.setattr(type(backend), "reasons", lambda self, inputs: ["no"])
    with pytest.raises(BackendError, match="None of the backends cpu, gather, flex, reference"):
        block_sparse_attention(*tensors(), MASK)


def test_a_pin_is_what_auto_means(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    monkeypatch.setenv("SPARSEDIFF_BACKEND", "reference")
    q, k, v = tensors()
    block_sparse_attention(q, k, v, MASK)
    block_mass(q, k, torch.zeros(1, 2, 32), block_size=16)
    block_sparse_attention(q, k, v, MASK, backend="gather")
    assert ran == ["reference", "reference", "gather"]


def test_a_pinned_backend_never_falls_back(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    monkeypatch.setenv("SPARSEDIFF_BACKEND", "cpu")
    q, k, v = tensors(grad=True)
    with pytest.raises(BackendError, match=r"SPARSEDIFF_BACKEND=cpu is set, .* no backward"):
        block_sparse_attention(q, k, v, MASK)
    with pytest.raises(BackendError, match=r"SPARSEDIFF_BACKEND=cpu is set, .* no backward"):
        block_mass(q, k, torch.zeros(1, 2, 32), block_size=16)
    assert ran == []


def test_a_pin_without_block_mass_leaves_it(
    monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    monkeypatch.setenv("SPARSEDIFF_BACKEND", "flex")
    q, k, _ = tensors()
    block_mass(q, k, torch.zeros(1, 2, 32), block_size=16)
    assert ran == [PATH["cpu"]]


@pytest.mark.parametrize(("value", "path"), [("", PATH["cpu"]), ("auto", PATH["cpu"])])
def test_no_pin(monkeypatch: pytest.MonkeyPatch, ran: list[str], value: str, path: str) -> None:
    monkeypatch.setenv("SPARSEDIFF_BACKEND", value)
    block_sparse_attention(*tensors(), MASK)
    assert ran == [path]


def test_a_pin_that_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEDIFF_BACKEND", "fast")
    with pytest.raises(
        BackendError, match=r"SPARSEDIFF_BACKEND='fast' is no backend; .*auto, triton"
    ):
        block_sparse_attention(*tensors(), MASK)
