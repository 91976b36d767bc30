"""Calibration: how large the inputs of a model's layers are while its pipeline runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import log
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsediff.kernels.errors import SparseError
from sparsediff.progress import Progress
from sparsediff.prune.layer_inputs import InputSums, LayerInputs
from sparsediff.prune.quiet_pipeline import quiet
from sparsediff.prune.subject import Subject

StepWeights = Literal["even", "log"]


def layer_inputs(
    subject: Subject, paths: Collection[str], *, step_weights: StepWeights = "even"
) -> LayerInputs:
    """Run the pipeline over the subject's prompts, guidance and all, and look at layers' inputs.

    ``paths``: linear layers of the subject's model. ``step_weights``: "even", or "log", which falls
    from 1.2 at the first of T steps to 0.8 at the last as 0.8 + 0.4 ln(T - step) / ln T, since early
    errors go through the whole run (OBS-Diff, arXiv 2510.06751).

    Raises SparseError for a subject that cannot be run, layers that are never called, inputs that are
    not finite, and "log" where nobody says how many steps there are.
    """
    return layer_inputs_by_part(subject, paths, lambda time: 0, 1, step_weights=step_weights)[0]


def layer_inputs_by_part(
    subject: Subject,
    paths: Collection[str],
    part_of: Callable[[Tensor], int],
    parts: int,
    *,
    step_weights: StepWeights = "even",
) -> list[LayerInputs]:
    """As `layer_inputs`, in one run, for each part of the run on its own.

    ``part_of``: the part, 0 to ``parts`` - 1, of the timestep that the model is told.
    """
    check_step_weights(step_weights)
    subject.check_prompts("calibration")
    seen = _Seen(subject, step_weights, part_of, parts)
    with torch.no_grad(), seen.looking(paths), quiet(subject.pipe):
        for number, prompt in enumerate(subject.prompts):
            _run(subject, prompt, number)
            seen.progress.run_ends()
            subject.progress(number + 1, len(subject.prompts))
    return [sums.result(paths) for sums in seen.parts]


def check_step_weights(value: str) -> None:
    """Raises SparseError for another value than there is."""
    if value not in get_args(StepWeights):
        raise SparseError(
            f"step_weights={value!r}: needs one of {', '.join(get_args(StepWeights))}."
        )


def step_weight(step: int, of: int) -> float:
    """OBS-Diff's weight of a step, counted from 0, of a run."""
    return 1.0 if of == 1 else 0.8 + 0.4 * log(max(1, of - step)) / log(of)


class _Seen:
    """Hooks on a model, and the sums that they add to."""

    def __init__(
        self,
        subject: Subject,
        step_weights: StepWeights,
        part_of: Callable[[Tensor], int],
        parts: int,
    ) -> None:
        self.model, self.step_weights = subject.model, step_weights
        self.progress = Progress(lambda: getattr(subject.pipe, "scheduler", None))
        self.weight = 1.0
        self.part_of, self.parts = part_of, [InputSums() for _ in range(parts)]
        self.sums = self.parts[0]
        self._names = tuple(inspect.signature(type(subject.model).forward).parameters)[1:]

    @contextmanager
    def looking(self, paths: Collection[str]) -> Iterator[None]:
        """Inside, every call of the model and the layers is seen; afterwards no hook is left."""
        handles: list[RemovableHandle] = []
        try:
            hook = self.model.register_forward_pre_hook(self._at_model, with_kwargs=True)
            handles.append(hook)
            for path in paths:
                layer = self.model.get_submodule(path)
                handles.append(layer.register_forward_pre_hook(self._at_layer(path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _at_model(self, model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        told = dict(zip(self._names, args, strict=False)) | named
        time = told.get("timestep", told.get("timesteps"))
        self.progress.forward_begins()
        self.progress.at_layer(0, torch.as_tensor(time) if time is not None else None)
        if len(self.parts) > 1:
            self.sums = self.parts[self.part_of(torch.as_tensor(time))]
        if self.step_weights == "log":
            step = self.progress.step
            if step.total is None:
                raise SparseError(
                    "step_weights='log' needs the number of steps, which this pipeline's scheduler "
                    "does not say. Use 'even'."
                )
            self.weight = step_weight(step.index, step.total)

    def _at_layer(self, path: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            self.sums.add(path, args[0], self.weight)

        return hook


def _run(subject: Subject, prompt: str, number: int) -> None:
    taken = inspect.signature(subject.pipe.__call__).parameters
    seeded = {
        "generator": torch.Generator().manual_seed(subject.seed + number),
        "output_type": "latent",
    }
    extra = {name: value for name, value in seeded.items() if name in taken}
    subject.pipe(**{**extra, **subject.call, "prompt": prompt})
