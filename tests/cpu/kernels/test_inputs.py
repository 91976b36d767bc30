"""Wrong inputs: each refused with what was found, what is needed and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sparsediff.kernels import BlockMask, SparseError, block_mass, block_sparse_attention

MASK = BlockMask.full(block_size=16, q_len=32, kv_len=48)


def arguments() -> dict[str, Any]:
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 4, 8, generator=noise) for n in (32, 48, 48))
    return {"q": q, "k": k, "v": v, "mask": MASK}


def spoiled(name: str, value: float) -> torch.Tensor:
    x: torch.Tensor = arguments()[name]
    x[1, 2, 3, 4] = value
    return x


def heads(n: int) -> BlockMask:
    return BlockMask.from_dense(
        torch.ones(1, n, 2, 3, dtype=torch.bool), block_size=16, q_len=32, kv_len=48
    )


def out_of_range() -> BlockMask:
    mask = BlockMask.full(block_size=16, q_len=32, kv_len=48).complete()
    mask.indices[..., 2] = 3
    return mask


WRONG: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "ndim": (lambda: {"q": torch.ones(2, 32, 8)}, r"q is \(2, 32, 8\); give a tensor \[batch"),
    "no tensor": (lambda: {"k": [1.0]}, "k is list; give a tensor"),
    "no tokens": (lambda: {"q": torch.ones(2, 0, 4, 8)}, "none of them 0"),
    "dtype": (lambda: {"k": torch.ones(2, 48, 4, 8).half()}, "k is torch.float16 .* must be alike"),
    "int": (
        lambda: {n: arguments()[n].int() for n in "qkv"},
        "q is torch.int32; attention takes torch.float32",
    ),
    "device": (lambda: {"v": torch.ones(2, 48, 4, 8, device="meta")}, "v is .* on meta"),
    "batch": (lambda: {"k": torch.ones(1, 48, 4, 8)}, r"do not fit together: q \(2, 32, 4, 8\)"),
    "heads": (lambda: {"k": torch.ones(2, 48, 2, 8)}, "do not fit together"),
    "head dim": (lambda: {"v": torch.ones(2, 48, 4, 16)}, "do not fit together"),
    "k and v": (lambda: {"v": torch.ones(2, 47, 4, 8)}, "k and v equally long"),
    "nan in q": (lambda: {"q": spoiled("q", float("nan"))}, "q holds 1 numbers .* not finite"),
    "inf in k": (lambda: {"k": spoiled("k", float("inf"))}, "k holds 1 numbers .* not finite"),
    "-inf in v": (lambda: {"v": spoiled("v", float("-inf"))}, "v holds 1 numbers .* not finite"),
    "no mask": (lambda: {"mask": torch.ones(2, 3)}, "mask is Tensor; give a BlockMask"),
    "mask lengths": (
        lambda: {"mask": BlockMask.full(block_size=16, q_len=32, kv_len=32)},
        "covers 32 x 32 tokens, q and k have 32 x 48",
    ),
    "mask heads": (lambda: {"mask": heads(2)}, "batch 1 and 2 heads; q has batch 2 and 4 heads"),
    "mask device": (lambda: {"mask": MASK.to("meta")}, "The mask is on meta, q is on cpu"),
    "mask range": (lambda: {"mask": out_of_range()}, "numbers 0 to 2"),
    "scale 0": (lambda: {"scale": 0.0}, "scale=0.0; give a positive finite number"),
    "scale nan": (lambda: {"scale": float("nan")}, "scale=nan"),
    "scale < 0": (lambda: {"scale": -1.0}, "scale=-1.0"),
    "lens shape": (
        lambda: {"kv_lens": torch.tensor([3])},
        r"kv_lens is .*; give an integer tensor",
    ),
    "lens dtype": (lambda: {"kv_lens": torch.tensor([3.0, 4.0])}, "integer tensor"),
    "lens list": (lambda: {"kv_lens": [3, 4]}, "kv_lens is list"),
    "lens range": (lambda: {"kv_lens": torch.tensor([3, 49])}, "between 0 and the 48 keys"),
    "backend": (
        lambda: {"backend": "cuda"},
        "Unknown backend 'cuda'; choose one of 'auto', 'triton', 'cpu', 'gather'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_attention_input(name: str, ran: list[str]) -> None:
    change, words = WRONG[name]
    with pytest.raises(SparseError, match=words):
        block_sparse_attention(**{**arguments(), **change()})
    assert ran == []


def test_the_arguments_are_right_without_the_change(ran: list[str]) -> None:
    block_sparse_attention(**arguments())
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("lse", "words"),
    [
        (torch.zeros(2, 4, 31), r"\[batch, heads, q tokens\] = \(2, 4, 32\)"),
        (torch.zeros(2, 32, 4), "as block_sparse_attention"),
        (torch.zeros(2, 4, 32).double(), "lse is torch.float64"),
        (torch.zeros(2, 4, 32, device="meta"), "on meta"),
    ],
)
def test_wrong_lse(lse: torch.Tensor, words: str) -> None:
    given = arguments()
    with pytest.raises(SparseError, match=words):
        block_mass(given["q"], given["k"], lse, block_size=16)


def test_wrong_mass_block() -> None:
    given = arguments()
    with pytest.raises(SparseError, match="block_size=0 is not a block size"):
        block_mass(given["q"], given["k"], torch.zeros(2, 4, 32), block_size=0)
