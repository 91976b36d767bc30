"""AttentionCall: one self-attention call, as a method sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sparsediff.kernels import dense_attention_lse
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.global_tokens import with_global_tokens
from sparsediff.kernels.inputs import AttentionInputs, MassInputs
from sparsediff.kernels.mass import measure
from sparsediff.kernels.registry import choose
from sparsediff.kernels.remainder import attention, pool_blocks
from sparsediff.search.arrangement import Arrangement
from sparsediff.search.faint_keys import FaintKeys
from sparsediff.search.head_share import HeadShare
from sparsediff.search.sampled_probe import Probe
from sparsediff.search.schedule import Step
from sparsediff.search.token_grid import TokenGrid


class Recorder(Protocol):
    """Whoever counts what a call did."""

    def ran_dense(self, call: AttentionCall) -> None:
        """The call was computed densely, as planned."""

    def ran_sparse(self, call: AttentionCall, mask: BlockMask, backend: str) -> None:
        """The call computed the blocks of `mask` with the named kernel backend."""

    def noted(self, text: str) -> None:
        """Something the user should know of this run; said once, however often it is noted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCall:
    """The tensors of one call and the ways to compute it.

    ``q``, ``k``, ``v`` ``[b, s, h, d]`` with rotary and norms applied, in the model's token order, as
    is every output; ``grid``, masks, masses, LSEs and ``kv_lens`` are in that of ``arrangement``, where
    None is the model's. ``kv_lens`` int64 ``[b]`` or None as in `block_sparse_attention`; ``layer``
    numbers all layers of the target and ``depth`` those of this model; ``user_dense`` runs the
    attention the user has configured. ``share`` says which heads of the layer these are, where several
    processes divide them; None when they are all. ``faint``: the keys beyond ``kv_lens`` are not hidden
    but weighed less; outputs contain them, masses and LSEs do not.
    Every way to compute the output tells the recorder, so a report cannot miss one. The tensors come
    from the model, so the kernels' checks of a user's input are not repeated at every call.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grid: TokenGrid
    step: Step
    layer: int
    depth: int
    scale: float
    kv_lens: Tensor | None
    backend: str
    user_dense: Callable[[], Tensor]
    recorder: Recorder
    share: HeadShare | None = None
    arrangement: Arrangement | None = None
    faint: FaintKeys | None = None
    _moved: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def heads(self) -> tuple[int, ...]:
        """Numbers of the heads that this call holds."""
        return tuple(range(self.q.shape[2])) if self.share is None else self.share.numbers

    @property
    def layer_heads(self) -> int:
        """Heads of the layer, those of other processes included."""
        return self.q.shape[2] if self.share is None else self.share.total

    def arranged(self, *names: str) -> tuple[Tensor, ...]:
        """Those of "q", "k" and "v" that are named, in the arranged order; each is moved only once.

        Not to be called first where gradients are off: what is moved there is cut off from the model.
        """
        if self.arrangement is None:
            return tuple(getattr(self, name) for name in names)
        for name in names:
            if name not in self._moved:
                self._moved[name] = self.arrangement.tokens.moved(getattr(self, name))
        return tuple(self._moved[name] for name in names)

    def restored(self, out: Tensor) -> Tensor:
        """An output ``[b, s, h, d]`` of arranged tensors in the model's order."""
        return out if self.arrangement is None else self.arrangement.tokens.restored(out)

    def dense(self) -> Tensor:
        """Dense attention by the user's own backend: ``[b, s, h, d]``."""
        self.recorder.ran_dense(self)
        return self.user_dense()

    def dense_with_lse(self) -> tuple[Tensor, Tensor]:
        """Dense attention by the fastest kernel that also returns the LSE ``[b, h, s]``."""
        self.recorder.ran_dense(self)
        if self.arrangement is not None and self.kv_lens is None:
            # The step stays what it is in the model's order, to the last bit; only the LSE moves.
            with _as_given(self.q):
                out, lse = dense_attention_lse(self.q, self.k, self.v, scale=self.scale)
            return out, self.arrangement.tokens.moved(lse, dim=2)
        out, lse = self._dense_lse(*self.arranged("q", "k", "v"))
        return self.restored(self._with_faint(out, lse)), lse

    def lse(self) -> Tensor:
        """The exact log-sum-exp of every query row, fp32 ``[b, h, s]``, without counting a call."""
        q, k, v = self.arranged("q", "k", "v")
        with torch.no_grad():
            return self._dense_lse(q, k, v)[1]

    def _dense_lse(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        with _as_given(q):
            return dense_attention_lse(q, k, v, scale=self.scale, kv_lens=self.kv_lens)

    def mass(self, lse: Tensor, block: int, *, query_stride: int = 1) -> Tensor:
        """Attention mass of every block pair under `lse`: fp32 ``[b, h, m, n]`` (AdaSpa Alg. 2)."""
        q, k = self.arranged("q", "k")
        inputs = MassInputs(
            q=q.detach(),
            k=k.detach(),
            lse=lse.detach(),
            block_size=(block, block),
            scale=self.scale,
            kv_lens=self.kv_lens,
        )
        with _as_given(self.q):
            return measure(inputs, backend="auto", query_stride=query_stride)

    def probe(self, probe: Probe) -> Tensor:
        """Scores of the video's block pairs: fp32 ``[b, h, m, n]``, 0 for pairs that touch text.

        The draw depends on the layer and, in a run whose number of steps is known, on the step while no
        gradients are recorded. A layer that runs again in the backward pass has to draw what it drew
        before, and other forwards may have moved the step on since then; a model called by itself, as
        a training does, has steps only as its timesteps change, which differ between processes.
        """
        q, k = self.arranged("q", "k")
        counted = self.step.total is not None and not torch.is_grad_enabled()
        step = self.step.index if counted else 0
        with torch.no_grad(), _as_given(q):
            return probe.scores(
                q,
                k,
                self.grid,
                heads=self._head_numbers(),
                place=(self.layer, step),
                scale=self.scale,
                lens=self.kv_lens,
            )

    def _head_numbers(self) -> Tensor:
        """`heads` as int64 ``[h]``, made where the tensors are: a list would make a GPU wait."""
        if self.share is None:
            return torch.arange(self.q.shape[2], device=self.q.device)
        return self.share.own(torch.arange(self.share.total, device=self.q.device)[None])[0]

    def sparse(
        self, mask: BlockMask, *, compensate: bool = False, global_window: int | None = None
    ) -> Tensor:
        """Attention over the blocks of `mask` only: ``[b, s, h, d]``.

        With `compensate`, every block left out takes part as one mean key and one mean value; with
        `global_window`, every so many tokens do, whether they are left out or not.
        """
        q, k, v = self.arranged("q", "k", "v")
        with _as_given(q):
            inputs = AttentionInputs(
                q=q,
                k=k,
                v=v,
                mask=mask,
                scale=self.scale,
                kv_lens=self.kv_lens,
                return_lse=self.faint is not None or global_window is not None,
                pooled=pool_blocks(k, v, mask.block_size[1], self.kv_lens) if compensate else None,
            )
            backend = choose(self.backend, inputs)
            out, lse = attention(backend, inputs)
            if global_window is not None and lse is not None:
                out, lse = with_global_tokens(inputs, out, lse, global_window)
        self.recorder.ran_sparse(self, mask, backend.name)
        return self.restored(self._with_faint(out, lse))

    def _with_faint(self, out: Tensor, lse: Tensor | None) -> Tensor:
        """An output of arranged tensors with the keys that are weighed less, if there are any."""
        if self.faint is None or lse is None:
            return out
        q, k, v = self.arranged("q", "k", "v")
        with _as_given(q):
            return self.faint.added((q, k, v), out, lse, scale=self.scale)


def under_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as autocast would hand them to attention; as they are outside of it."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) if x.dtype == torch.float32 else x for x in tensors)


def _as_given(q: Tensor) -> torch.autocast:
    """Kernels compute what they say: autocast would round their float32 sums."""
    return torch.autocast(q.device.type, enabled=False)
