"""Load a student into a pipeline, and put the pipeline back."""

from __future__ import annotations

import os
import weakref
from contextlib import ExitStack
from typing import Any

from torch import nn

from sparsediff.api import enable_sparse_attention
from sparsediff.distill.student.pipeline_parts import put, put_weights
from sparsediff.distill.student.student_card import check_base
from sparsediff.distill.student.student_source import StudentSource
from sparsediff.kernels.errors import (
    AlreadyEnabledError,
    PlanError,
    SparseError,
)
from sparsediff.models import denoisers
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.root_hooks import session_on
from sparsediff.session import Session

# What takes a student out of its pipeline again.
_loaded: weakref.WeakKeyDictionary[Any, ExitStack] = weakref.WeakKeyDictionary()


def load_student(
    pipe: Any,
    source: str | os.PathLike[str],
    *,
    sparse: bool = True,
    fuse: bool = False,
    gate: bool = True,
    backend: str = "auto",
    adapter_name: str = "sparsediff-student",
    revision: str | None = None,
    token: str | bool | None = None,
    **method_overrides: Any,
) -> Session | None:
    """Make a pipeline run a distilled student: its weights, its scheduler, its sparse attention.

    `source`: the folder that `sparsediff distill` wrote, or a Hub id (with `revision` and `token`).
    Call the pipeline with ``num_inference_steps`` and ``guidance_scale`` of the student's card then,
    such as 8 and 1: any other number of steps leaves the noise levels it was trained at. `sparse`:
    enable the sparse attention that it was trained with, with `gate` and `backend` as in
    `enable_sparse_attention` and `method_overrides` changing its fields. `fuse` adds its LoRA to the
    weights, which runs a little faster; `adapter_name` is the LoRA's in peft.

    Returns the Session, None where attention stays dense. Raises PlanError for files that cannot be
    used, PlanMismatchError for a student of another model, AlreadyEnabledError when the pipeline has a
    student or sparse attention already, SparseError without peft; then the pipeline is as it was.
    """
    if isinstance(pipe, nn.Module) or not hasattr(pipe, "scheduler"):
        raise SparseError(
            f"A student is loaded into a diffusers pipeline, not into a {type(pipe).__name__}."
        )
    _refuse_second(pipe, sparse=sparse)
    found = StudentSource.of(source, revision=revision, token=token)
    try:
        card = found.card()
        method = found.method(card) if sparse else None
        scheduler = found.scheduler(card)
        found.require_weights(card)
    except SparseError as error:
        raise PlanError(f"The student {found.label} cannot be used: {error}") from error
    check_base(card, Fingerprint.of(pipe))
    session = None
    with ExitStack() as undo:
        put_weights(pipe, found, card, undo, adapter=adapter_name, fuse=fuse)
        put(pipe, "scheduler", scheduler, undo)
        if method is not None:
            method = method.with_options(**method_overrides)
            session = enable_sparse_attention(pipe, method, gate=gate, backend=backend)
            undo.callback(session.disable)
        _loaded[pipe] = undo.pop_all()
    return session


def unload_student(pipe: Any) -> None:
    """Undo `load_student`: weights, scheduler and attention are what they were.

    Bit by bit, but for weights that a LoRA was fused into: those are exact only up to rounding. Does
    nothing when no student is loaded.
    """
    _loaded.pop(pipe, ExitStack()).close()


def _refuse_second(pipe: Any, *, sparse: bool) -> None:
    if pipe in _loaded:
        raise AlreadyEnabledError(
            f"This {type(pipe).__name__} has a student already. Call sparsediff.unload_student first."
        )
    enabled = any(session_on(model) is not None for model in denoisers(pipe).values())
    if sparse and enabled:
        raise AlreadyEnabledError(
            "Sparse attention is already enabled on this pipeline. Call disable_sparse_attention() "
            "first, or load the student with sparse=False to keep it."
        )
