"""The flex backend: FlexAttention through torch.compile, one compiled function per kind of call.

Dynamo keeps a few compiled variants per function; behind that limit it runs the function eagerly with
no more than a warning, and eager FlexAttention builds the whole tokens x tokens score matrix. So each
kind of call gets a function of its own, compiled with fullgraph=True, which turns any fallback into an
error; and the mask carries an exact mask_mod, so that no path could compute anything else.
"""

from __future__ import annotations

import functools
import importlib.util
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.cpu.build import find_compiler
from sparsediff.kernels.errors import BackendError
from sparsediff.kernels.inputs import AttentionInputs, MassInputs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Each compile takes seconds and stays in memory.
MAX_KINDS = 32
# A mask as FlexAttention reads it takes a byte and two int32 entries for every pair of blocks; every
# layer has masks, so larger ones are made again for each call.
FLEX_BYTES = 9
MAX_KEPT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class CallKind:
    """Everything that FlexAttention compiles into the code; equal kinds share one function."""

    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    lists: tuple[int, ...]
    block_size: tuple[int, int]
    dtype: torch.dtype
    device: str
    scale: float
    padded: bool
    return_lse: bool
    needs_grad: bool

    @classmethod
    def of(cls, inputs: AttentionInputs) -> CallKind:
        """The kind of a call."""
        tensors = (inputs.q, inputs.k, inputs.v)
        return cls(
            shapes=tuple(tuple(x.shape) for x in tensors),
            strides=tuple(x.stride() for x in tensors),
            lists=tuple(inputs.mask.indices.shape[:3]),
            block_size=inputs.mask.block_size,
            dtype=inputs.q.dtype,
            device=str(inputs.q.device),
            scale=inputs.scale,
            padded=inputs.kv_lens is not None,
            return_lse=inputs.return_lse,
            needs_grad=inputs.needs_grad,
        )


class FlexBackend:
    """torch.nn.attention.flex_attention, compiled; the first call of each kind takes seconds."""

    name = "flex"
    pools = False

    def __init__(self) -> None:
        self._compiled: dict[CallKind, Callable[..., Any]] = {}

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here."""
        found = []
        if inputs.q.dtype not in DTYPES:
            found.append(f"{inputs.q.dtype} (needs float32, bfloat16 or float16)")
        device = inputs.q.device.type
        if device == "cpu":
            found += _cpu_reasons(inputs)
        elif device == "cuda":
            found += _cuda_reasons(inputs)
        else:
            found.append(f"FlexAttention has no kernel for {device}")
        if len(self._compiled) >= MAX_KINDS and CallKind.of(inputs) not in self._compiled:
            found.append(f"{MAX_KINDS} kinds of calls are compiled already, and this is another")
        return found

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` in q's dtype and, if asked for (CUDA), the LSE ``[b, h, s]``."""
        kind = CallKind.of(inputs)
        if kind not in self._compiled:
            self._compiled[kind] = compile_call(kind)
        mask = _flex_mask(inputs)
        try:
            found = self._compiled[kind](inputs.q, inputs.k, inputs.v, mask)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise BackendError(
                f"FlexAttention would be recompiled for a call that was compiled before ({kind}). "
                f'Please report this; until then use backend="auto".'
            ) from error
        out, lse = found if inputs.return_lse else (found, None)
        return out.transpose(1, 2), lse

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """FlexAttention returns no block mass."""
        return ["FlexAttention returns no block mass"]

    def mass(self, inputs: MassInputs) -> Tensor:
        """Not available; `mass_reasons` says so."""
        raise BackendError("; ".join(self.mass_reasons(inputs)))


def _flex_mask(inputs: AttentionInputs) -> Any:
    """The mask as FlexAttention reads it; kept with ours where it is small and without padding."""
    mask = inputs.mask
    batch, heads, rows = mask.counts.shape
    small = batch * heads * rows * mask.kv_blocks * FLEX_BYTES <= MAX_KEPT_BYTES
    if inputs.kv_lens is None and small:
        return mask.derived("flex", mask.to_flex)
    return mask.to_flex(kv_lens=inputs.kv_lens)


def compile_call(kind: CallKind) -> Callable[..., Any]:
    """A function of q, k, v ``[b, s, h, d]`` and a FlexAttention mask, with its own compile cache."""

    from torch.nn.attention.flex_attention import flex_attention

    # Its overloads know return_lse only as a literal.
    run: Any = flex_attention
    scale, return_lse, options = kind.scale, kind.return_lse, _kernel_options(kind)

    def call(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Any:
        return run(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            block_mask=mask,
            scale=scale,
            return_lse=return_lse,
            kernel_options=options,
        )

    # Dynamo counts recompiles per code object, so each kind gets a copy of the code.
    own = types.FunctionType(
        call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__
    )
    compiled: Callable[..., Any] = torch.compile(own, dynamic=False, fullgraph=True)
    return compiled


def _kernel_options(kind: CallKind) -> dict[str, int] | None:
    """On CUDA, tiles that divide the blocks; FlexAttention's defaults may not."""
    if not kind.device.startswith("cuda"):
        return None
    rows, columns = kind.block_size
    return {"BLOCK_M": min(128, _power_of_two(rows)), "BLOCK_N": min(64, _power_of_two(columns))}


def _power_of_two(n: int) -> int:
    """The largest power of two that divides n."""
    return n & -n


def _cpu_reasons(inputs: AttentionInputs) -> list[str]:
    found = []
    if inputs.return_lse:
        found.append("on CPU FlexAttention returns no LSE")
    if inputs.needs_grad:
        found.append("on CPU FlexAttention has no backward")
    if find_compiler() is None:
        found.append("torch.compile needs a C++ compiler and none was found")
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        found.append("on CPU FlexAttention needs AVX2")
    return found


def _cuda_reasons(inputs: AttentionInputs) -> list[str]:
    found = []
    if not _has_triton():
        found.append("torch.compile needs triton on CUDA")
    if any(_power_of_two(n) < 16 for n in inputs.mask.block_size):
        found.append(f"block_size={inputs.mask.block_size} (needs multiples of 16 on CUDA)")
    return found


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
