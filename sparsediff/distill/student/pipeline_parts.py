"""Parts of a pipeline exchanged for a student's, and put back."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from typing import Any

from sparsediff.distill.student.student_adapter import load_adapter, remove_adapter
from sparsediff.distill.student.student_card import StudentCard
from sparsediff.distill.student.student_source import StudentSource
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.pruned_model import saved_class
from sparsediff.root_hooks import session_on


def put_weights(
    pipe: Any,
    found: StudentSource,
    card: StudentCard,
    undo: ExitStack,
    *,
    adapter: str,
    fuse: bool,
) -> None:
    """Put a student's weights into a pipeline until `undo`: a LoRA, fused if asked, or a model.

    Raises SparseError when they cannot be, with the pipeline as it was.
    """
    model = getattr(pipe, card.component)
    if card.rank is None:
        if getattr(pipe, "_offload_device", None) is not None:
            raise SparseError(
                f"This student replaces {card.component}, and the pipeline's offloading is attached to "
                f"the old one. Load the student first, then enable offloading."
            )
        if session_on(model) is not None:
            raise SparseError(
                f"This student replaces {card.component}, on which sparse attention is enabled: it "
                f"would run dense. Call disable_sparse_attention() first."
            )
        kind: Any = saved_class(found.folder / card.component, type(model))
        made = kind.from_pretrained(found.folder / card.component, torch_dtype=model.dtype)
        put(pipe, card.component, made.to(model.device), undo)
        return
    before = load_adapter(pipe, card.component, found.folder, adapter)
    undo.callback(remove_adapter, model, adapter, before)
    if fuse:  # all that are active: a fused layer passes over adapters that were not
        model.fuse_lora(adapter_names=[*before.running, adapter])
        undo.callback(model.unfuse_lora)


def put(pipe: Any, name: str, value: Any, undo: ExitStack) -> None:
    """Replace a part of a pipeline until `undo`, which must not keep the pipeline alive."""
    undo.callback(_put_back, weakref.ref(pipe), name, getattr(pipe, name))
    setattr(pipe, name, value)


def _put_back(pipe: weakref.ref[Any], name: str, value: Any) -> None:
    target = pipe()
    if target is not None:
        setattr(target, name, value)
