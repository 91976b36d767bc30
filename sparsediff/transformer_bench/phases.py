"""The two phases that are timed: steps without the plug-in, and a run with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sparsediff.api import sparse_attention
from sparsediff.kernels.errors import SparseError
from sparsediff.report import RunReport
from sparsediff.search import AdaSpa
from sparsediff.session import Session
from sparsediff.transformer_bench.denoising import Denoising, Kind, StepTime, kinds_of
from sparsediff.transformer_bench.dense_kernel import DenseKernel, timed_dense
from sparsediff.transformer_bench.random_model import first_blocks
from sparsediff.transformer_bench.result import StepTimes
from sparsediff.transformer_bench.stopwatch import Stopwatch

KIND_SECONDS = 30.0  # a slow kind of step gets fewer rounds, at least one


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What both phases have to know: ``calls`` of self-attention over ``tokens`` in every step."""

    tokens: int
    calls: int
    repeat: int
    device: torch.device
    say: Callable[[str], None]


def dense_steps(run: Denoising, kernel: DenseKernel, plan: Plan) -> StepTimes:
    """Steps without the plug-in, self-attention by the given kernel."""
    stopwatch = Stopwatch(plan.device)
    with timed_dense(kernel, stopwatch, plan.tokens):
        with first_blocks(run.model):
            run.step(0)
        plan.say(f"dense steps, attention by {kernel.name}")
        rounds = _rounds(run, [0] * plan.repeat, stopwatch)
    _require_calls(rounds, plan.calls, "dense")
    return StepTimes(rounds=tuple(rounds))


def _rounds(run: Denoising, steps: list[int], stopwatch: Stopwatch) -> list[StepTime]:
    rounds: list[StepTime] = []
    for index in steps:
        rounds.append(run.timed_step(index, stopwatch))
        if sum(found.seconds for found in rounds) > KIND_SECONDS:
            break
    return rounds


def _require_calls(rounds: list[StepTime], wanted: int, kind: str) -> None:
    for found in rounds:
        if found.calls != wanted:
            raise SparseError(
                f"A {kind} step made {found.calls} self-attention calls, not {wanted}: its attention "
                f"share would be wrong. This version of diffusers differs from the ones known here."
            )


def sparse_steps(
    run: Denoising, method: AdaSpa, plan: Plan
) -> tuple[dict[Kind, StepTimes], RunReport]:
    """One run with the plug-in on: its search step, steady sparse steps and its search again.

    Raises SparseError when a call that should have run sparse did not.
    """
    stopwatch = Stopwatch(plan.device)
    kinds = kinds_of(method, run.scheduler.num_inference_steps)
    with sparse_attention(run, method, gate=False) as session:
        _time_attention(session, stopwatch)
        plan.say("rehearsing the sparse kernels")
        with first_blocks(run.model):
            for index in sorted(kinds.index(kind) for kind in {*kinds} - {"dense"}):
                run.step(index)
        session.end_run()
        run.scheduler.start_run()
        found: dict[Kind, list[StepTime]] = {}
        for kind, steps in _visits(kinds, plan.repeat):
            plan.say(f"{kind} step")
            found[kind] = _rounds(run, steps, stopwatch)
        report = session.report()
    _require_sparse(report, found, plan.calls)
    return {kind: StepTimes(rounds=tuple(rounds)) for kind, rounds in found.items()}, report


def _visits(kinds: list[Kind], repeat: int) -> Iterator[tuple[Kind, list[int]]]:
    """The steps of the run that are timed, in its order: a search, steady steps, a search again."""
    search = kinds.index("search")
    yield "search", [search]
    refresh = kinds.index("refresh") if "refresh" in kinds else len(kinds)
    steady = [index for index, kind in enumerate(kinds) if kind == "sparse"]
    before = [index for index in steady if index < refresh]
    if before:
        yield "sparse", before[:repeat]
    if refresh < len(kinds):
        yield "refresh", [refresh]
    if not before:
        yield "sparse", steady[:repeat]


def _time_attention(session: Session, stopwatch: Stopwatch) -> None:
    attend = session.attend

    def timed(*args: Any, **options: Any) -> torch.Tensor:
        with stopwatch.span():
            return attend(*args, **options)

    session.attend = timed  # type: ignore[method-assign]


def _require_sparse(report: RunReport, found: dict[Kind, list[StepTime]], calls: int) -> None:
    """Dense times must never be called sparse."""
    for kind, rounds in found.items():
        _require_calls(rounds, calls, kind)
    steps = sum(len(rounds) for kind, rounds in found.items() if kind != "search")  # which is dense
    if report.sparse_calls != calls * steps or report.fallbacks:
        raise SparseError(
            f"{report.sparse_calls} of {calls * steps} calls ran sparse, so there is no sparse time to "
            f"report. Fallbacks: {report.fallbacks or 'none'}."
        )
