"""Enable, disable, report: the functions behind the methods on pipelines and models."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import nn

from sparsediff import dispatch
from sparsediff.kernels import backends
from sparsediff.kernels.errors import AlreadyEnabledError, SparseError, UnsupportedModelError
from sparsediff.models import LayoutRule, denoisers, facts_of, self_attention
from sparsediff.operator import handles
from sparsediff.processors import mark
from sparsediff.report import RunReport
from sparsediff.root_hooks import add_context_hook, add_root_hook, session_on
from sparsediff.search import METHODS, Method
from sparsediff.session import Session

logger = logging.getLogger("sparsediff")

_enabled: weakref.WeakSet[Session] = weakref.WeakSet()


def enable_sparse_attention(
    target: Any,
    method: str | Method = "adaspa",
    *,
    backend: str = "auto",
    gate: bool = True,
    **overrides: Any,
) -> Session:
    """Make the self-attention of a pipeline or model block-sparse, until it is disabled.

    `target`: a diffusers pipeline, modular pipeline or model; every supported denoiser of a pipeline is
    taken (both transformers of Wan 2.2), its autoencoder and text encoders never. `method`: a name
    ("adaspa", "window", "random", "true-mass") or a configuration such as
    ``AdaSpa(density=0.25)``; `overrides` change its fields. `backend`: a kernel backend by name, which
    then never falls back, or "auto". `gate`: reserved for deciding whether sparse attention pays here.

    Nothing outside the target changes. Returns the Session. Raises SparseError for a bad configuration,
    UnsupportedModelError when the target has nothing to accelerate and AlreadyEnabledError when it is
    enabled already; then nothing stays attached.
    """
    config = resolve_method(method, overrides)
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
    return _attach(target, models, config, backend)


def resolve_method(method: str | Method, overrides: dict[str, Any]) -> Method:
    """The configuration that a name or a configuration and overrides stand for."""
    if isinstance(method, Method):
        return method.with_options(**overrides) if overrides else method
    if not isinstance(method, str) or method not in METHODS:
        near = get_close_matches(str(method), METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SparseError(
            f"Unknown method {method!r}; choose one of {', '.join(METHODS)} or pass a configuration "
            f"such as sparsediff.AdaSpa(density=0.25).{hint}"
        )
    return METHODS[method]().with_options(**overrides)


def _attach(target: Any, models: dict[str, nn.Module], config: Method, backend: str) -> Session:
    places: list[tuple[nn.Module, LayoutRule, dict[str, nn.Module]]] = []
    layers: list[str] = []
    for name, model in models.items():
        facts = facts_of(model)
        if facts is None:
            continue
        modules = self_attention(model, facts)
        places.append((model, facts.layout, modules))
        layers += [f"{name}.{path}" if name else path for path in modules]
    pipeline = None if isinstance(target, nn.Module) else weakref.ref(target)
    session = Session(
        method=config,
        backend=backend,
        layers=layers,
        scheduler=lambda: getattr(pipeline() if pipeline else None, "scheduler", None),
    )
    dispatch.wrap()
    try:
        remaining = iter(handles(session))
        taken: set[int] = set()
        for model, layout, modules in places:
            for module in modules.values():
                session.undo.append(mark(module, next(remaining), taken))
            session.undo.append(add_root_hook(model, session, layout, modules))
            session.undo.append(add_context_hook(model, session))
    except BaseException:
        session.disable()
        _unwrap_when_unused()
        raise
    session.undo.insert(0, _unwrap_when_unused)
    _enabled.add(session)
    # A pipeline that is dropped while enabled takes its session along.
    weakref.finalize(session, _unwrap_when_unused).atexit = False
    return session


def _unwrap_when_unused() -> None:
    if not any(session.enabled for session in _enabled):
        dispatch.unwrap()


def _sessions(target: Any) -> list[Session]:
    found = [session_on(model) for model in denoisers(target).values()]
    return list({id(session): session for session in found if session is not None}.values())


def disable_sparse_attention(target: Any) -> None:
    """Undo `enable_sparse_attention`, bit-exactly; does nothing when it was not enabled."""
    try:
        sessions = _sessions(target)
    except UnsupportedModelError:  # it never was enabled
        sessions = []
    if not sessions:
        logger.info("sparse attention is not enabled on this %s", type(target).__name__)
    for session in sessions:
        session.disable()


@contextmanager
def sparse_attention(
    target: Any, method: str | Method = "adaspa", **options: Any
) -> Iterator[Session]:
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
