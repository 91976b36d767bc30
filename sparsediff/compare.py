"""Generate one prompt sparse, or dense and sparse from the same noise, and measure both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsediff.api import enable_sparse_attention
from sparsediff.environment import device_name, versions
from sparsediff.generation_request import GenerationRequest
from sparsediff.generation_result import GenerationResult, Timing
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import SparseError
from sparsediff.loaded_model import LoadedModel
from sparsediff.models import denoisers
from sparsediff.quality import quality
from sparsediff.report import RunReport
from sparsediff.root_hooks import session_on
from sparsediff.timed_run import Runner, TimedRun

_WARM_UP_STEPS = 2  # one dense step that searches and one sparse step


@dataclass(slots=True)
class _Runs:
    """Everything the runs of one request leave behind."""

    dense: list[TimedRun] = field(default_factory=list)
    sparse: list[TimedRun] = field(default_factory=list)
    report: RunReport | None = None
    masks: dict[str, BlockMask] = field(default_factory=dict)


def generate(request: GenerationRequest, *, bars: bool = False) -> GenerationResult:
    """Load the model and run the request; `bars` shows the progress of every run on stderr.

    Raises SparseError for a bad request, and as `generate_with` does.
    """
    model = LoadedModel.of(request)
    return generate_with(model, model.runner(request, bars=bars), request)


def generate_with(
    model: LoadedModel,
    runner: Runner,
    request: GenerationRequest,
    *,
    dense: TimedRun | None = None,
) -> GenerationResult:
    """Run the request on a model that is loaded; `dense` is an earlier run of `run_dense`, if any.

    Dense and sparse runs alternate, so that a machine that slows down slows both. Raises SparseError
    when the plan is another model's, and when the sparse run did not run sparse, other than by the
    gate.
    """
    if request.plan is not None:
        request.plan.check(model.pipe)
    with memory_explained(runner, request):
        runs = measure(runner, request, dense=dense)
    if runs.report is None:  # repeat >= 1 makes this impossible; said for the type checker
        raise SparseError("No sparse run was made.")
    recipe = runner.recipe
    dense_frames = runs.dense[0].frames if runs.dense else None
    sparse_frames = _decoded(runs.sparse)
    return GenerationResult(
        model=request.model,
        prompt=recipe.prompt,
        seed=request.seed,
        steps=runner.steps,
        call=recipe.call,
        fps=recipe.fps,
        device=model.device,
        device_name=device_name(model.device),
        dtype=model.dtype,
        sparse=Timing(seconds=tuple(run.seconds for run in runs.sparse)),
        sparse_frames=sparse_frames,
        report=runs.report,
        masks=runs.masks,
        versions=versions(),
        dense=Timing(seconds=tuple(run.seconds for run in runs.dense)) if runs.dense else None,
        dense_frames=dense_frames,
        quality=None if dense_frames is None else quality(dense_frames, sparse_frames),
        warmed_up=_needs_warm_up(request),
        plan=request.plan.to_dict() if request.plan else None,
    )


def run_dense(runner: Runner, request: GenerationRequest) -> TimedRun:
    """One timed dense run, decoded, after a short untimed one: what later comparisons can share."""
    with memory_explained(runner, request):
        runner.label = "warm-up"
        _run_dense(runner, decode=False, steps=_WARM_UP_STEPS)
        runner.label = "dense"
        return _run_dense(runner, decode=True)


@contextmanager
def memory_explained(runner: Runner, request: GenerationRequest) -> Iterator[None]:
    """Inside the with-block a device without memory is a SparseError with a remedy."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise SparseError(
            f"{runner.device} ran out of memory. Use fewer frames or a smaller size; "
            f"`sparsediff doctor --model {request.model} --size WIDTHxHEIGHTxFRAMES` estimates the "
            f"need."
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out: torch has no kind of its own for the CPU's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def measure(runner: Runner, request: GenerationRequest, *, dense: TimedRun | None = None) -> _Runs:
    """The timed runs, after one short untimed run of each kind where times are compared.

    The untimed runs build the CPU kernel, fill caches and let the allocator grow. With `dense`, a
    dense run that was made before, only sparse ones are made.
    """
    runs = _Runs(dense=[] if dense is None else [dense])
    run_both = request.compare and dense is None
    if _needs_warm_up(request):
        runner.label = "warm-up"
        if run_both:
            _run_dense(runner, decode=False, steps=_WARM_UP_STEPS)
        # Without the gate: so few steps never pay.
        _run_sparse(runner, request, _Runs(), gate=False, decode=False, steps=_WARM_UP_STEPS)
    for number in range(request.repeat):
        count = f" {number + 1}/{request.repeat}" if request.repeat > 1 else ""
        if run_both:
            runner.label = f"dense{count}"
            runs.dense.append(_run_dense(runner, decode=number == 0))
        runner.label = f"sparse{count}"
        runs.sparse.append(
            _run_sparse(runner, request, runs, gate=request.gate, decode=number == 0)
        )
        _require_sparse(runs.report, runner.steps)
    return runs


def _needs_warm_up(request: GenerationRequest) -> bool:
    return request.compare or request.repeat > 1


def _run_dense(runner: Runner, *, decode: bool, steps: int | None = None) -> TimedRun:
    """A run of the untouched pipeline: an enabled session would make the comparison worthless."""
    for name, model in denoisers(runner.pipe).items():
        if session_on(model) is not None:
            raise SparseError(f"Sparse attention is still enabled on {name}; disable it first.")
    return runner.run(decode=decode, steps=steps)


def _run_sparse(
    runner: Runner,
    request: GenerationRequest,
    runs: _Runs,
    *,
    gate: bool,
    decode: bool,
    steps: int | None = None,
) -> TimedRun:
    session = enable_sparse_attention(
        runner.pipe, request.method, backend=request.backend, gate=gate
    )
    try:
        run = runner.run(decode=decode, steps=steps)
        runs.report, runs.masks = session.report(), session.masks()
    finally:
        session.disable()
    return run


def _require_sparse(report: RunReport | None, steps: int) -> None:
    if report is None or report.sparse_calls > 0 or report.gated:
        return
    if report.fallbacks:
        reason = "; ".join(f"{count} x {why}" for why, count in report.fallbacks.items())
    else:
        reason = f"the first {report.method.get('warmup')} of {steps} steps run dense"
    raise SparseError(
        f"No attention call ran sparse ({report.dense_calls} ran dense): {reason}. Use more steps, "
        f"a smaller warmup or a larger video."
    )


def _decoded(runs: list[TimedRun]) -> Tensor:
    frames = runs[0].frames
    if frames is None:
        raise SparseError("The first run was not decoded.")
    return frames
