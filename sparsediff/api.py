"""Enable, disable, report: the functions behind the methods on pipelines and models."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch._guards import CompileContext

from sparsediff import dispatch
from sparsediff.configuration import Choice, Configuration
from sparsediff.context_hook import add_context_hook
from sparsediff.current import Mark, Place
from sparsediff.kernels import backends
from sparsediff.kernels.errors import AlreadyEnabledError, SparseError, UnsupportedModelError
from sparsediff.models import ModelFacts, denoisers, facts_of, self_attention
from sparsediff.operator import handles
from sparsediff.processors import mark, shared_processors
from sparsediff.report import RunReport
from sparsediff.root_hooks import add_root_hook, session_on
from sparsediff.search import Method
from sparsediff.session import Session

logger = logging.getLogger("sparsediff")

_enabled: weakref.WeakSet[Session] = weakref.WeakSet()
_by_pipeline: weakref.WeakKeyDictionary[Any, weakref.ref[Session]] = weakref.WeakKeyDictionary()
# Enabling and disabling take turns; a garbage collection in between may disable in the same thread.
_turn = threading.RLock()


def enable_sparse_attention(
    target: Any,
    method: Choice = "adaspa",
    *,
    backend: str = "auto",
    gate: bool = True,
    **overrides: Any,
) -> Session:
    """Make the self-attention of a pipeline or model block-sparse, until it is disabled.

    `target`: a diffusers pipeline, modular pipeline or model; every supported denoiser of a pipeline is
    taken (both transformers of Wan 2.2), its autoencoder and text encoders never. `method`: a name
    ("adaspa", "window", "random", "true-mass"), a configuration such as ``AdaSpa(density=0.25)``, or
    a plan of `sparsediff search`: a PatternPlan, its folder or its Hub id. `overrides` change the
    method's fields. `backend`: a kernel backend by name, which then never falls back, or "auto".
    `gate`: before the first sparse step, predict from times measured on this machine whether sparse
    attention pays at this length, density and number of steps, and run dense, with one warning, where
    it does not; False always runs sparse.

    Nothing outside the target changes. Returns the Session. Raises SparseError for a bad configuration,
    PlanError for a plan that cannot be read, PlanMismatchError for a plan of another model,
    UnsupportedModelError when the target has nothing to accelerate and AlreadyEnabledError when it is
    enabled already; then nothing stays attached.
    """
    config = Configuration.of(method, overrides)
    if not isinstance(gate, bool):
        raise SparseError(f"gate={gate!r}: needs True or False.")
    known = ("auto", *backends())
    if backend not in known:
        raise SparseError(f"Unknown backend {backend!r}; choose one of {', '.join(known)}.")
    models = denoisers(target)
    for name, model in models.items():
        current = session_on(model)
        if current is not None:
            raise AlreadyEnabledError(
                f"Sparse attention is already enabled on {name or type(model).__name__} "
                f"({current.method.name}, density {current.method.density}). Call "
                f"disable_sparse_attention() first."
            )
    config.check(target)
    return _attach(target, models, config.method, backend, gate=gate)


def _attach(
    target: Any, models: dict[str, nn.Module], config: Method, backend: str, *, gate: bool
) -> Session:
    from sparsediff import internals  # noqa: F401  (refuses a diffusers that it cannot attach to)

    modules = {name: self_attention(model, _facts(model)) for name, model in models.items()}
    pipeline = None if isinstance(target, nn.Module) else weakref.ref(target)
    session = Session(
        method=config,
        backend=backend,
        layers=[f"{name}.{path}" if name else path for name in models for path in modules[name]],
        depths=[depth for name in models for depth in range(len(modules[name]))],
        scheduler=lambda: getattr(pipeline() if pipeline else None, "scheduler", None),
        gate=gate,
    )
    with _turn:
        session.enabled = True
        _enabled.add(session)
        # A pipeline that is dropped while enabled takes its session along.
        weakref.finalize(session, _unwrap_when_unused).atexit = False
        session.undo.append(_unwrap_when_unused)
        try:
            dispatch.wrap()
            _mark_models(session, models, modules)
        except BaseException:
            session.disable()
            raise
        if pipeline is not None:
            _by_pipeline[target] = weakref.ref(session)
    return session


def _facts(model: nn.Module) -> ModelFacts:
    facts = facts_of(model)
    if facts is None:
        raise UnsupportedModelError(f"{type(model).__name__} is not supported.")
    return facts


def _mark_models(
    session: Session, models: dict[str, nn.Module], modules: dict[str, dict[str, nn.Module]]
) -> None:
    named = handles(session)
    taken: set[int] = set()
    first = 0
    for name, model in models.items():
        place = Place()
        taken |= shared_processors(model)
        numbered = dict(enumerate(modules[name].values(), start=first))
        first += len(numbered)
        for layer, module in numbered.items():
            label = Mark(handle=named[layer], place=place)
            session.undo.append(mark(module, label, taken))
        session.undo.append(add_root_hook(model, session, _facts(model), place, numbered))
        session.undo.append(add_context_hook(model, session))


def _unwrap_when_unused() -> None:
    compiling = CompileContext.try_get()
    if compiling is not None:  # collected in the midst: the graph has seen the wrappers already
        weakref.finalize(compiling, _unwrap_when_unused).atexit = False
        return
    with _turn:
        if not any(session.enabled for session in _enabled):
            dispatch.unwrap()


def _sessions(target: Any) -> list[Session]:
    found = [session_on(model) for model in denoisers(target).values()]
    if not isinstance(target, nn.Module):  # its models may have been exchanged since
        known = _by_pipeline.get(target)
        session = known() if known is not None else None
        found.append(session if session is not None and session.enabled else None)
    return list({id(session): session for session in found if session is not None}.values())


def disable_sparse_attention(target: Any) -> None:
    """Undo `enable_sparse_attention`, bit-exactly; does nothing when it was not enabled."""
    try:
        sessions = _sessions(target)
    except UnsupportedModelError:  # it never was enabled
        sessions = []
    if not sessions:
        logger.info("sparse attention is not enabled on this %s", type(target).__name__)
    with _turn:
        for session in sessions:
            session.disable()


@contextmanager
def sparse_attention(target: Any, method: Choice = "adaspa", **options: Any) -> Iterator[Session]:
    """`enable_sparse_attention` for the length of a with-block; disabled again on any way out."""
    session = enable_sparse_attention(target, method, **options)
    try:
        yield session
    finally:
        session.disable()


def sparse_attention_report(target: Any) -> RunReport:
    """What the last run of an enabled target did. Raises SparseError when it is not enabled."""
    sessions = _sessions(target)
    if not sessions:
        raise SparseError(
            f"Sparse attention is not enabled on this {type(target).__name__}, so there is no report. "
            f"Enable it first, or keep the Session and read session.report() after disabling."
        )
    return sessions[0].report()
