"""The fa4 backend: FlashAttention-4's block-sparse forward (package flash-attn-4, CuTe DSL).

Never run on a GPU by this project: the call is written from the source of flash-attn-4 4.0.0b36 and
held by a contract test with a stand-in package. "auto" takes it only after a measurement that also
checked its result against the reference on the machine itself.

As of 4.0.0b36 (flash_attn/cute/interface.py, block_sparsity.py and block_sparse_utils.py):

* On sm90 a query block is one tile of 128 rows; on sm100 and sm110 two tiles share a block, so it has
  256. A key block is one tile of 128. sm80 ignores the lists without a word, sm120 takes none.
* Lists are read from their end, and only the first block so read has keys behind the last token
  masked off: exact, because our lists ascend and a ragged block can only be the last one.
* A row without blocks gives 0 and -inf. The LSE is in natural log.
* Gradients of block lists at head dim 64 on sm90 were wrong in 2026-06 (flash-attention issue 2623),
  and these lists are forward ones: calls that need a gradient are refused.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import BackendError
from sparsediff.kernels.inputs import AttentionInputs, MassInputs

PACKAGE = "flash_attn.cute"
DTYPES = (torch.bfloat16, torch.float16)
HEAD_DIMS = (64, 128)
# Compute capability's major number -> the block size that its tiles make.
BLOCK_SIZES = {9: (128, 128), 10: (256, 128), 11: (256, 128)}


@dataclass(frozen=True, kw_only=True, slots=True)
class CutePackage:
    """What is used of flash-attn-4: its attention function and its record of block lists."""

    attention: Callable[..., Any]
    lists: Callable[..., Any]


class Fa4Backend:
    """flash_attn.cute's block-sparse attention; the first call of each kind compiles for seconds."""

    name = "fa4"
    pools = False

    def reasons(self, inputs: AttentionInputs) -> list[str]:
        """Why these inputs cannot be computed here; the package is imported only if nothing else is."""
        found = []
        if inputs.q.dtype not in DTYPES:
            found.append(f"{inputs.q.dtype} (needs bfloat16 or float16)")
        if inputs.q.shape[3] not in HEAD_DIMS:
            found.append(f"head dim {inputs.q.shape[3]} (needs 64 or 128)")
        if inputs.kv_lens is not None:
            found.append("it takes no kv_lens")
        if inputs.needs_grad:
            found.append("a gradient is needed and this backend has no backward")
        found += _device_reasons(inputs)
        if not found:
            package = cute_package()
            found += [package] if isinstance(package, str) else []
        return found

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Output ``[b, s, h, d]`` in q's dtype and, if asked for, the fp32 LSE ``[b, h, s]``."""
        package = cute_package()
        if isinstance(package, str):
            raise BackendError(f"Backend {self.name!r} cannot run: {package}.")
        lists = inputs.mask.derived("fa4", lambda: package.lists(**block_lists(inputs.mask)))
        with torch.cuda.device_of(inputs.q):  # it compiles for the current device, not for q's
            out, lse = package.attention(
                inputs.q,
                inputs.k,
                inputs.v,
                softmax_scale=inputs.scale,
                block_sparse_tensors=lists,
                return_lse=inputs.return_lse,
            )
        return out, lse if inputs.return_lse else None

    def mass_reasons(self, inputs: MassInputs) -> list[str]:
        """FlashAttention returns no block mass."""
        return ["FlashAttention returns no block mass"]

    def mass(self, inputs: MassInputs) -> Tensor:
        """Not available; `mass_reasons` says so."""
        raise BackendError("; ".join(self.mass_reasons(inputs)))


def block_lists(mask: BlockMask) -> dict[str, Any]:
    """The mask as the fields of flash-attn-4's record: every block full, no partial ones.

    ``full_block_cnt`` int32 ``[b, h, m]`` and ``full_block_idx`` int32 ``[b, h, m, x]``, b and h 1
    where shared. The partial lists must exist and are empty.
    """
    counts = mask.counts
    indices = mask.complete().indices
    if indices.shape[3] == 0:  # no row has a block
        indices = counts.new_zeros((*counts.shape, 1))
    none = counts.new_zeros((1, 1, counts.shape[2]))
    return {
        "mask_block_cnt": none,
        "mask_block_idx": none[..., None],
        "full_block_cnt": counts.contiguous(),
        "full_block_idx": indices.contiguous(),
        "block_size": mask.block_size,
    }


def _device_reasons(inputs: AttentionInputs) -> list[str]:
    device, block_size = inputs.q.device, inputs.mask.block_size
    if device.type != "cuda":
        return [f"the tensors are on {device}, not on a CUDA device"]
    major, minor = torch.cuda.get_device_capability(device)
    needed = BLOCK_SIZES.get(major)
    if needed is None:
        return [f"sm{major}{minor} (needs sm90, sm100 or sm110)"]
    if block_size != needed:
        return [f"block_size={block_size} (needs {needed} on sm{major}{minor})"]
    return []


@functools.cache
def cute_package() -> CutePackage | str:
    """flash-attn-4's entry points, or why they cannot be used."""
    try:
        if importlib.util.find_spec(PACKAGE) is None:
            return "flash-attn-4 is not installed"
        attention = importlib.import_module(PACKAGE).flash_attn_func
        lists = importlib.import_module(f"{PACKAGE}.block_sparsity").BlockSparseTensorsTorch
    except ModuleNotFoundError as error:
        if error.name == "flash_attn":
            return "flash-attn-4 is not installed"
        return f"flash-attn-4 cannot be imported: {error}"
    except Exception as error:  # its own compiler stack may fail in any way
        return f"flash-attn-4 cannot be imported: {type(error).__name__}: {error}"
    if "block_sparse_tensors" not in inspect.signature(attention).parameters:
        return "this flash-attn-4 takes no block lists (4.0.0b36 does)"
    return CutePackage(attention=attention, lists=lists)
