"""Inside: what every head computed and attended to, in a run that is made to look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsediff.api import enable_sparse_attention
from sparsediff.compare import memory_explained
from sparsediff.generation_request import GenerationRequest
from sparsediff.generation_result import GenerationResult
from sparsediff.head_probe import HeadProbe, LayerView
from sparsediff.kernels.errors import SparseError
from sparsediff.report import RunReport
from sparsediff.timed_run import Runner

LAST = -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inside:
    """The ``report`` of a run and the ``views`` of its layers, by the layer's number and the step.

    Whether attention was ``measured`` at some steps, or only the last mask of every layer is known,
    which then is the view of the step LAST.
    """

    report: RunReport
    views: Mapping[tuple[int, int], LayerView] = field(default_factory=dict)
    measured: bool = False

    @classmethod
    def of_result(cls, result: GenerationResult) -> Inside:
        """What a run leaves behind without being looked at: the last mask of every layer."""
        numbers = {row["name"]: int(str(row["layer"])) for row in result.report.layers}
        views = {
            (numbers[name], LAST): LayerView.of_mask(mask) for name, mask in result.masks.items()
        }
        return cls(report=result.report, views=views)

    def steps(self, layer: int) -> tuple[int, ...]:
        """The steps at which there is a view of a layer."""
        return tuple(sorted(step for at, step in self.views if at == layer))

    def recall(self, layer: int) -> tuple[float, ...]:
        """Of every head of a layer, the mean over its sparse views; empty where there is none."""
        views = [self.views[layer, step] for step in self.steps(layer)]
        rows = [view.recall for view in views if view.recall and not view.is_dense]
        return tuple(sum(head) / len(rows) for head in zip(*rows, strict=True))

    @property
    def bytes(self) -> int:
        """Memory that the maps take."""
        tensors = [t for v in self.views.values() for t in (v.kept, v.attention) if t is not None]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def look_inside(runner: Runner, request: GenerationRequest) -> Inside:
    """Run a request once more, sparse and not decoded, and look at every head on the way.

    It takes longer than the run itself, so no time is taken. Raises SparseError when no call ran
    sparse, as then there is nothing to see.
    """
    session = enable_sparse_attention(
        runner.pipe, request.method, backend=request.backend, gate=request.gate
    )
    probe = HeadProbe(layers=len(session.layers), block_size=session.method.block_size)
    session.observer = probe
    runner.label = "measuring"
    try:
        with memory_explained(runner, request):
            runner.run(decode=False)
        report = session.report()
    finally:
        session.disable()
    if not report.sparse_calls:
        raise SparseError(
            f"All {report.dense_calls} attention calls ran dense, so every head holds everything. "
            f"Turn the gate off, use more steps or a larger size."
        )
    return Inside(report=report, views=probe.views, measured=True)
