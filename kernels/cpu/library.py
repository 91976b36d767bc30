"""The built C++ kernels: how they are called, and the check that they compute what they should."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.cpu.build import BuildError, build
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.reference import ReferenceBackend

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Largest error of the first-load check, relative to numbers of size 1: rounding of the inputs'
# dtype in the output and, for bfloat16, in the weights.
CHECK_ERROR = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


class Strided(Structure):
    """A [batch, tokens, heads, dim] tensor: address and strides in elements."""

    _fields_ = (("data", c_void_p), ("batch", c_int64), ("token", c_int64), ("head", c_int64))


Field = tuple[str, type[c_int32 | c_int64 | c_float | c_void_p | Strided]]


def _fields(
    kind: type[c_int32 | c_int64 | c_float | c_void_p | Strided], names: str
) -> list[Field]:
    return [(name, kind) for name in names.split()]


TAIL = (
    *_fields(c_int64, "batch heads q_len kv_len dim block_q block_k"),
    *_fields(c_float, "scale"),
    *_fields(c_int32, "dtype threads"),
)


class AttentionCall(Structure):
    """The arguments of one call; the fields of the C++ struct in its order."""

    _fields_ = (
        *_fields(Strided, "q k v out"),
        *_fields(c_void_p, "lse counts indices kv_lens pooled_bias"),
        *_fields(Strided, "pooled_k pooled_v"),
        *_fields(c_int64, "counts_batch counts_head counts_row"),
        *_fields(c_int64, "indices_batch indices_head indices_row indices_entry"),
        *TAIL,
    )


class MassCall(Structure):
    """The arguments of one call; the fields of the C++ struct in its order."""

    _fields_ = (
        *_fields(Strided, "q k"),
        *_fields(c_void_p, "lse kv_lens out"),
        *_fields(c_int64, "lse_batch lse_head lse_token"),
        *TAIL,
    )


class NativeLibrary:
    """The C++ kernels, loaded."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self._attention = library.sparsediff_attention
        self._attention.argtypes = (POINTER(AttentionCall),)
        self._mass = library.sparsediff_mass
        self._mass.argtypes = (POINTER(MassCall),)
        lanes = int(library.sparsediff_variant())
        width = {16: "avx512", 8: "avx", 4: "vector4"}[lanes % 100]
        self.variant = f"native-{width}-bf16" if lanes > 100 else f"native-{width}"

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` and, if asked for, the LSE fp32 ``[b, h, s]``."""
        q, k, v = (_dim_contiguous(x) for x in (inputs.q, inputs.k, inputs.v))
        out = q.new_empty(q.shape)
        b, s, h, _ = q.shape
        lse = q.new_empty((b, h, s), dtype=torch.float32) if inputs.return_lse else None
        counts, indices = inputs.mask.counts, inputs.mask.complete().indices
        lens = None if inputs.kv_lens is None else inputs.kv_lens.contiguous()
        bias, pooled = _pooled(inputs)
        call = AttentionCall(
            *(_strided(x) for x in (q, k, v, out)),
            *(None if x is None else x.data_ptr() for x in (lse, counts, indices, lens, bias)),
            *(Strided() if x is None else _strided(x) for x in pooled),
            *_broadcast_strides(counts),
            *_broadcast_strides(indices),
            *_tail(q, k, inputs.mask.block_size, inputs.scale),
        )
        _check(self._attention(ctypes.byref(call)))
        return out, lse

    def mass(self, inputs: MassInputs) -> Tensor:
        """Block mass fp32 ``[b, h, m, n]``."""
        q, k = _dim_contiguous(inputs.q), _dim_contiguous(inputs.k)
        out = q.new_empty((q.shape[0], q.shape[2], *inputs.blocks), dtype=torch.float32)
        lens = None if inputs.kv_lens is None else inputs.kv_lens.contiguous()
        call = MassCall(
            _strided(q),
            _strided(k),
            inputs.lse.data_ptr(),
            None if lens is None else lens.data_ptr(),
            out.data_ptr(),
            *inputs.lse.stride(),
            *_tail(q, k, inputs.block_size, inputs.scale),
        )
        _check(self._mass(ctypes.byref(call)))
        return out


@functools.cache
def native_library() -> NativeLibrary | str:
    """The loaded kernels, or why there are none; built, loaded and checked once per process."""
    try:
        library = NativeLibrary(str(build()))
    except (BuildError, OSError, AttributeError) as error:
        return str(error)
    return check_library(library) or library


def check_library(library: NativeLibrary) -> str | None:
    """Compare with the reference on small ragged inputs; what is wrong, or None."""
    generator = torch.Generator("cpu").manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    mask = BlockMask.from_dense(random(1, 2, 3, 4) < 0.3, block_size=(24, 20), q_len=70, kv_len=71)
    lens = torch.tensor([71, 45], device="cpu")
    reference = ReferenceBackend()
    for dtype, limit in CHECK_ERROR.items():
        q, k, v = (random(2, n, 2, 20).to(dtype) for n in (70, 71, 71))
        inputs = AttentionInputs(q=q, k=k, v=v, mask=mask, scale=0.3, kv_lens=lens, return_lse=True)
        lse = random(2, 2, 70) + 6
        mass = MassInputs(q=q, k=k, lse=lse, block_size=(24, 20), scale=0.1, kv_lens=lens)
        found = (*library.attention(inputs), library.mass(mass))
        wanted = (*reference.attention(inputs), reference.mass(mass))
        for mine, right in zip(found, wanted, strict=True):
            if mine is None or right is None or not _close(mine, right, limit):
                return f"the built kernels compute wrong numbers in {dtype} on this machine"
    return None


def _close(a: Tensor, b: Tensor, limit: float) -> bool:
    return torch.allclose(a.float(), b.float(), rtol=0, atol=limit)


def _check(code: int) -> None:
    if code != 0:
        raise MemoryError("the CPU kernel found no memory for its scratch panels")


def _dim_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _strided(x: Tensor) -> Strided:
    return Strided(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def _pooled(inputs: AttentionInputs) -> tuple[Tensor | None, tuple[Tensor | None, Tensor | None]]:
    """The bias in units of unscaled scores, and the pooled keys and values; None without them."""
    if inputs.pooled is None:
        return None, (None, None)
    bias = (inputs.pooled.log_count / inputs.scale).clamp(min=-1e30).contiguous()
    return bias, (_dim_contiguous(inputs.pooled.keys), _dim_contiguous(inputs.pooled.values))


def _broadcast_strides(x: Tensor) -> tuple[int, ...]:
    """The strides, 0 in batch and head where the tensor is shared."""
    return tuple(
        0 if axis < 2 and size == 1 else stride
        for axis, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True))
    )


def _tail(q: Tensor, k: Tensor, block: tuple[int, int], scale: float) -> tuple[int | float, ...]:
    b, s, h, d = q.shape
    threads = torch.get_num_threads()
    return b, h, s, k.shape[1], d, block[0], block[1], scale, DTYPE_CODES[q.dtype], threads
