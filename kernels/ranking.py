"""The measured order of the backends for one kind of call: which is fastest on this machine.

Backends that answer at once are timed when the order first matters; those that compile for seconds
take part once `measure` was asked for them. A wrong result never gets a time. Each kind of call is
measured once per machine and set of versions, and kept by `ranking_file`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence

import torch

from sparsediff.kernels import ranking_file
from sparsediff.kernels.backend import Backend
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.ranked_call import RankedCall
from sparsediff.kernels.ranking_file import Rank
from sparsediff.kernels.trial import Trial, rankable
from sparsediff.kernels.turns import aside, timeable

logger = logging.getLogger("sparsediff.kernels")

SWITCH = "SPARSEDIFF_RANKING"

# What this process knows; None: nothing is to be measured, the fixed order stands.
_ranks: dict[RankedCall, Rank | None] = {}
_measuring = threading.Lock()


def rank_of(inputs: AttentionInputs, quick: Sequence[Backend]) -> Rank | None:
    """The rank for such a call: remembered, from the file, or measured now; None: the fixed order.

    Only the `quick` backends are measured, and only if two of them can run the call.
    """
    if torch.compiler.is_compiling() or not enabled():
        return None
    call = RankedCall.of(inputs)
    if call not in _ranks:
        if not measurable(inputs):
            return None
        with _measuring:
            if call not in _ranks:
                _ranks[call] = ranking_file.load().get(call.key) or _first(call, inputs, quick)
    return _ranks[call]


def measure(call: RankedCall, backends: Sequence[Backend], *, thorough: bool) -> Rank | None:
    """Time the backends on one problem and keep their rank; None if memory did not suffice.

    A thorough measurement is larger and replaces what is in the file; of several quick ones, made by
    processes that start together, the first is kept by all. Raises SparseError for a kind of call
    that is not ranked.
    """
    rank = aside(lambda: _contest(call, backends, thorough))
    if rank is not None:
        rank = ranking_file.save(call.key, rank, replace=thorough)
        _ranks[call] = rank
    return rank


def enabled() -> bool:
    """Whether backends are ranked at all; $SPARSEDIFF_RANKING=off keeps the fixed order.

    Raises SparseError for another value.
    """
    value = os.environ.get(SWITCH, "")
    if value not in {"", "on", "off"}:
        raise SparseError(f'{SWITCH}={value!r}; give "on", "off", or leave it unset.')
    return value != "off"


def measurable(inputs: AttentionInputs) -> bool:
    """Whether kernels may be timed now: real tensors, and no CUDA graph being captured."""
    q = inputs.q
    return rankable(q.device, q.dtype, inputs.mask.block_size) and timeable(q, inputs.k, inputs.v)


def forget() -> None:
    """Drop what this process remembers; the file stays."""
    _ranks.clear()


def _first(call: RankedCall, inputs: AttentionInputs, quick: Sequence[Backend]) -> Rank | None:
    able = [backend for backend in quick if not backend.reasons(inputs)]
    return measure(call, able, thorough=False) if len(able) > 1 else None


def _contest(call: RankedCall, backends: Sequence[Backend], thorough: bool) -> Rank | None:
    cuda = call.device.type == "cuda"
    with (
        torch.cuda.device(call.device) if cuda else contextlib.nullcontext(),
        torch.set_grad_enabled(call.needs_grad),
    ):
        try:
            return _rank(Trial.of(call, thorough=thorough), backends)
        except (torch.OutOfMemoryError, MemoryError):
            return None  # says nothing about the backends


def _rank(trial: Trial, backends: Sequence[Backend]) -> Rank:
    right, failures = [], {}
    for backend in backends:
        if backend.reasons(trial.inputs):
            continue
        failure = _failure(trial, backend)
        if failure is None:
            right.append(backend)
        else:
            failures[backend.name] = failure
            logger.warning('backend %r is left out of "auto": %s', backend.name, failure)
    return Rank(seconds=trial.seconds(right), failures=failures)


def _failure(trial: Trial, backend: Backend) -> str | None:
    try:
        return trial.misfit(backend)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever a kernel, a compiler or a driver raises
        first_line = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {first_line[:300]}"
