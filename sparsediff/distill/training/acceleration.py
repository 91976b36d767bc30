"""The Accelerator that a distillation runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sparsediff.kernels.errors import SparseError

# Processes that accelerate leaves the model to. Where it shards it, it saves one optimiser for each
# model; here two learn on one base, so `sharding` does it.
_KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_HPU", "MULTI_MLU")


class Computing(Protocol):
    """The settings that say how a training computes."""

    @property
    def precision(self) -> str:
        """Of the models' calls: "no", "fp16" or "bf16"."""

    @property
    def shard(self) -> bool:
        """Whether each process holds a part of every weight."""


def accelerator_for(
    settings: Computing, folder: Path | None, *, cpu: bool = False, report_to: str | None = None
) -> Any:
    """accelerate's Accelerator for a training that keeps its things in `folder`, None if it has none.

    `report_to` names one of accelerate's trackers. Raises SparseError for a tracker that is not known
    or not installed, and for a precision or a way to share the work that cannot be used here.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    if report_to is not None:
        _check_tracker(report_to)
    # Each backward pass reaches one role's adapter; without this, the other's gradients are waited for.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=settings.precision,
            log_with=report_to,
            project_dir=None if folder is None else str(folder),
            kwargs_handlers=[unused],
        )
    except ValueError as error:
        raise SparseError(
            f"precision={settings.precision!r} cannot be used here: {error}"
        ) from error
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise SparseError("precision='fp16' needs a GPU. Use bf16, or no.")
    kind = str(accelerator.distributed_type.value)
    if kind not in _KINDS:
        raise SparseError(
            f"accelerate is set to {kind}; needs plain processes. Start with accelerate launch "
            f"--multi_gpu, or torchrun; --shard spreads the model over them."
        )
    if settings.shard and kind == "NO":
        raise SparseError(
            "shard=True spreads a model over several processes, and this is the only one. Start with "
            "accelerate launch --multi_gpu, or torchrun, or leave out --shard."
        )
    if settings.shard and settings.precision == "fp16":
        raise SparseError(
            "precision='fp16' needs all gradients of a weight in one place, and shard=True spreads "
            "them. Use bf16, or no."
        )
    return accelerator


@contextmanager
def exchanging(accelerator: Any, model: Any, *, last: bool) -> Iterator[None]:
    """Gradients of a wrapped model are exchanged between processes with the last micro-batch only."""
    if last:
        yield
        return
    with accelerator.no_sync(model):
        yield


def _check_tracker(name: str) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name == "all":
        return
    if name not in LOGGER_TYPE_TO_CLASS:
        raise SparseError(
            f"accelerate knows no tracker {name!r}; choose one of {', '.join(LOGGER_TYPE_TO_CLASS)}."
        )
    if name not in [str(found) for found in get_available_trackers()]:
        raise SparseError(
            f"The tracker {name!r} is not installed. Install its package, such as pip install {name}, "
            f"or leave out --report-to."
        )
