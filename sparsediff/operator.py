"""The one entry from a model's attention to a Session, eager or as an opaque compiled operator."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.layout import as_layout
from sparsediff.parallel.ulysses import in_shares
from sparsediff.search.head_share import HeadShare
from sparsediff.session import Session
from sparsediff.user_attention import UserAttention

_LAYER_BITS = 16

_sessions: weakref.WeakValueDictionary[int, Session] = weakref.WeakValueDictionary()
_numbers = count(1)

# The user's own attention functions by diffusers' backend name, while they are wrapped.
dense_functions: dict[str, Callable[..., Tensor]] = {}


def handles(session: Session) -> list[Tensor]:
    """A handle for every layer of a session: 0-d int64 CPU tensors that name session and layer."""
    number = next(_numbers)
    _sessions[number] = session
    return [torch.tensor((number << _LAYER_BITS) | layer) for layer in range(len(session.layers))]


def session_of(handle: Tensor) -> tuple[Session, int]:
    """The session and layer that a handle names; SparseError when the session is gone."""
    number, layer = divmod(int(handle.item()), 1 << _LAYER_BITS)
    session = _sessions.get(number)
    if session is None:
        raise SparseError(
            "An attention layer is marked for sparse attention, but its session is gone. Load the "
            "model again, or call disable_sparse_attention() before dropping the pipeline."
        )
    return session, layer


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    handle: Tensor,
    *,
    mask: Tensor | None,
    timestep: Tensor | None,
    layout: tuple[int, ...],
    positions: Tensor | None,
    part: int,
    scale: float | None,
    backend: str,
    group: str = "",
    compiled: bool = False,
) -> Tensor:
    """Compute one marked attention call ``[b, s, h, d]`` in its session.

    `backend` names the user's dense attention function for the calls that stay dense. With `group`, the
    tensors hold this process's part of the tokens; `parallel.ulysses` knows the processes by it.
    """
    session, layer = session_of(handle)
    function = dense_functions[backend]

    def whole(q: Tensor, k: Tensor, v: Tensor, share: HeadShare | None = None) -> Tensor:
        dense = UserAttention(
            name=backend, function=function, q=q, k=k, v=v, mask=mask, scale=scale
        )
        if session.paused:
            return dense()
        return session.attend(
            layer,
            q,
            k,
            v,
            attention_mask=mask,
            timestep=timestep,
            layout=layout,
            positions=positions,
            part=part,
            share=share,
            scale=q.shape[-1] ** -0.5 if scale is None else scale,
            dense=dense,
            compiled=compiled,
        )

    if not group:
        return whole(q, k, v)
    return in_shares(group, q, k, v, session=session, layer=layer, layout=layout, attend=whole)


@torch.library.custom_op("sparsediff::self_attention", mutates_args=())
def compiled_attend(  # noqa: PLR0917  (operators take positional arguments only)
    q: Tensor,
    k: Tensor,
    v: Tensor,
    handle: Tensor,
    mask: Tensor | None,
    timestep: Tensor | None,
    layout: Sequence[int],
    sizes: Tensor | None,
    positions: Tensor | None,
    part: int,
    scale: float | None,
    backend: str,
    group: str,
) -> Tensor:
    """`attend` as torch.compile sees it: opaque, so that every layer shares one graph.

    `sizes`, where given, is the layout as a tensor, so that every size shares it too.
    """
    out = attend(
        q,
        k,
        v,
        handle,
        mask=mask,
        timestep=timestep,
        layout=as_layout(layout if sizes is None else sizes.tolist()),
        positions=positions,
        part=part,
        scale=scale,
        backend=backend,
        group=group,
        compiled=True,
    )
    return out.contiguous()


@compiled_attend.register_fake
def _(  # noqa: PLR0917
    q: Tensor,
    k: Tensor,
    v: Tensor,
    handle: Tensor,
    mask: Tensor | None,
    timestep: Tensor | None,
    layout: Sequence[int],
    sizes: Tensor | None,
    positions: Tensor | None,
    part: int,
    scale: float | None,
    backend: str,
    group: str,
) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@torch.library.custom_op("sparsediff::note_dense", mutates_args=())
def note_dense(q: Tensor, handle: Tensor, timestep: Tensor | None, reason: str) -> Tensor:
    """Count a call of a compiled model that runs dense; returns a zero to add to its output.

    The zero is what keeps the compiler from dropping the note.
    """
    session, layer = session_of(handle)
    session.passed_over(layer, timestep, reason, compiled=True)
    return q.new_zeros(())


@note_dense.register_fake
def _(q: Tensor, handle: Tensor, timestep: Tensor | None, reason: str) -> Tensor:
    return q.new_empty(())


note_dense.register_autograd(lambda context, gradient: (None, None, None, None))
