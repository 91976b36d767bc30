"""Admission: whether one attention call can run sparse at all, and whether its inputs are sound."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.attention_mask import KeyPadding, key_padding
from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.registry import choose
from sparsediff.search import Method, TokenGrid
from sparsediff.search.arrangement import Arrangement, arrangements, order_of
from sparsediff.search.token_order import grid_order


class Admission:
    """The checks before a call; what costs a look at the data is done once per layer and run."""

    def __init__(self, method: Method, backend: str, layers: list[str]) -> None:
        self.block = method.block_size
        self.order = grid_order(method.token_order, method.block_size)
        self.backend = backend
        self.layers = layers
        self._looked_at: set[int] = set()
        self._paddings: dict[tuple[object, ...], KeyPadding | str] = {}

    def new_run(self) -> None:
        """Look at every layer's inputs again."""
        self._looked_at.clear()
        self._paddings.clear()

    def new_forward(self) -> None:
        """Forget the masks of the last forward: the next ones are new tensors at old addresses."""
        self._paddings.clear()

    def admit(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None,
        grid: TokenGrid | None,
    ) -> tuple[KeyPadding, Arrangement | None, str]:
        """Valid keys per batch item, the arrangement in which they come first, why to run dense.

        None for the arrangement that is the model's own.

        Raises SparseError for a mask that does not fit, for NaN or infinite numbers, and for a backend
        asked for by name that cannot compute such inputs.
        """
        padding, arrangement, reason = self._padding(mask, q, grid)
        reason = reason or self._unfit(q, grid)
        if layer not in self._looked_at:
            self._looked_at.add(layer)
            self._refuse_broken(layer, q=q, k=k, v=v)
            if self.backend != "auto" and not reason:
                self._require_backend(q, k, v, padding.lengths)
        return padding, arrangement, reason

    def _padding(
        self, mask: Tensor | None, q: Tensor, grid: TokenGrid | None
    ) -> tuple[KeyPadding, Arrangement | None, str]:
        choices = (None,) if grid is None else arrangements(grid, self.order, q.device)
        if mask is None:
            return KeyPadding(lengths=None), choices[0], ""
        key = (mask.data_ptr(), tuple(mask.shape), mask.stride(), mask.dtype, grid)
        if key not in self._paddings:
            batch, tokens, heads, _ = q.shape
            self._paddings[key] = key_padding(
                mask,
                batch=batch,
                heads=heads,
                tokens=tokens,
                orders=[order_of(choice) for choice in choices],
            )
        padding = self._paddings[key]
        if isinstance(padding, str):
            return KeyPadding(lengths=None), None, padding
        return padding, choices[padding.arrangement], ""

    def fits_one_block(self, tokens: int) -> bool:
        """Whether a sequence is too short to leave a block out."""
        return block_count(tokens, self.block) < 2

    def _unfit(self, q: Tensor, grid: TokenGrid | None) -> str:
        tokens = q.shape[1]
        if grid is None:
            return f"no token grid of the model's inputs describes a sequence of {tokens} tokens"
        if self.fits_one_block(tokens):
            return f"{tokens} tokens fit into one block of {self.block}"
        return ""

    def _refuse_broken(self, layer: int, **tensors: Tensor) -> None:
        """A broken model must not be mistaken for a broken plug-in."""
        for name, tensor in tensors.items():
            # Detached: what a look saves for gradients, checkpointing would miss in the second pass.
            if not bool(torch.isfinite(tensor.detach()).all()):
                raise SparseError(
                    f"{name} of {self.layers[layer]} holds NaN or infinite values, before sparse "
                    f"attention did anything. The model or its inputs are broken: check weights, "
                    f"dtype (bfloat16 instead of float16) and prompt embeddings."
                )

    def _require_backend(self, q: Tensor, k: Tensor, v: Tensor, kv_lens: Tensor | None) -> None:
        """Before any dense step: a named backend that fails later would waste them."""
        tokens = q.shape[1]
        full = BlockMask.full(block_size=self.block, q_len=tokens, kv_len=tokens, device=q.device)
        choose(self.backend, AttentionInputs(q=q, k=k, v=v, mask=full, scale=1.0, kv_lens=kv_lens))
