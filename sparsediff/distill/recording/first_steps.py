"""The first steps of a pipeline whose model is answered for: what it is told, what comes of it."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.distill.recording.tree import Tree, walk
from sparsediff.kernels.errors import SparseError

_NOISY = ("hidden_states", "sample")
_TIMES = ("timestep", "timesteps")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Call:
    """One call of the model as the pipeline made it: ``told`` besides noise and timestep."""

    noisy: Tensor
    timestep: Tensor
    told: Mapping[str, Tree]
    answer: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FirstStep:
    """Calls of one step, and what the pipeline then gave its scheduler."""

    calls: tuple[Call, ...]
    output: Tensor
    sample: Tensor
    time: float


@dataclass(kw_only=True, slots=True, eq=False)
class Heard:
    """What came up in a run: ``own_sigmas`` is whether the pipeline gave its scheduler noise levels.

    ``scheduler`` is a copy of the pipeline's, its timesteps set as the pipeline sets them.
    """

    steps: list[FirstStep] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    own_sigmas: bool = False
    scheduler: Any = None


class _EnoughError(Exception):
    """Ends a pipeline's call once its first steps are known."""


class FirstSteps:
    """Runs a pipeline up to its first or second step, without its model, and leaves it as it was.

    ``noisy_name`` and ``time_name`` are the model's names of the noisy latents and the timestep.
    Raises SparseError for a model without such.
    """

    def __init__(self, pipe: Any, model: nn.Module) -> None:
        self.pipe, self.model = pipe, model
        self._names = tuple(inspect.signature(type(model).forward).parameters)[1:]
        self.noisy_name = next((name for name in _NOISY if name in self._names), "")
        self.time_name = next((name for name in _TIMES if name in self._names), "")
        if not self.noisy_name or not self.time_name:
            raise SparseError(
                f"{type(model).__name__} takes {', '.join(self._names)}; training needs a model "
                f"that takes noisy latents ({' or '.join(_NOISY)}) and a timestep."
            )
        if "audio_hidden_states" in self._names:
            raise SparseError(
                f"{type(model).__name__} makes video and sound together; training is for models "
                f"with one output."
            )

    def run(self, arguments: Mapping[str, Any], count: int = 1) -> Heard:
        """The first `count` steps of a call; SparseError, from its own, when the pipeline fails."""
        heard = Heard()
        seeded = {"generator": torch.Generator().manual_seed(0), "output_type": "latent"}
        taken = inspect.signature(self.pipe.__call__).parameters
        extra = {name: value for name, value in seeded.items() if name in taken}
        try:
            with torch.no_grad(), self._listening(heard, count):
                self.pipe(**{**extra, **arguments})
        except (SparseError, _EnoughError):
            pass
        except Exception as error:
            raise SparseError(
                f"{type(self.pipe).__name__} failed when its model was answered for, to record what "
                f"it is told: {type(error).__name__}: {error}"
            ) from error
        if len(heard.steps) < count:
            raise SparseError(
                f"{type(self.pipe).__name__} ended after {len(heard.steps)} steps of the model and "
                f"scheduler; recording what it tells its model needs {count}."
            )
        return heard

    @contextmanager
    def _listening(self, heard: Heard, count: int) -> Iterator[None]:
        """The pipeline with a copy of its scheduler, which listens, and a model that only answers."""
        pipe, model, scheduler = self.pipe, self.model, self.pipe.scheduler
        forward, bar = vars(model).get("forward"), vars(pipe).get("_progress_bar_config")
        try:
            listener = pipe.scheduler = heard.scheduler = copy.deepcopy(scheduler)
            listener.set_timesteps = _noting_sigmas(listener.set_timesteps, heard)
            listener.step = _noting_step(listener.step, heard, count)
            model.forward = functools.partial(self._answer, heard)
            pipe._progress_bar_config = {"disable": True}
            yield
        finally:
            pipe.scheduler = scheduler
            for name in ("set_timesteps", "step"):
                vars(heard.scheduler).pop(name, None)
            _put_back(model, "forward", forward)
            _put_back(pipe, "_progress_bar_config", bar)
            pipe.maybe_free_model_hooks()  # as the end of its call would

    def _answer(self, heard: Heard, *args: Any, **kwargs: Any) -> Any:
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        told = dict(zip(self._names, args, strict=False)) | kwargs
        as_class = told.pop("return_dict", True)
        # Pipelines may change a tensor in place after the call.
        told = walk(told, lambda path, x: x.detach().clone())
        noisy, timestep = told.pop(self.noisy_name), told.pop(self.time_name)
        random = torch.Generator().manual_seed(len(heard.calls))
        answer = torch.randn(self._answer_shape(noisy), generator=random).to(noisy)
        heard.calls.append(
            Call(noisy=noisy, timestep=torch.as_tensor(timestep), told=told, answer=answer)
        )
        return Transformer2DModelOutput(sample=answer.clone()) if as_class else (answer.clone(),)

    def _answer_shape(self, noisy: Tensor) -> list[int]:
        """As the noise, but for models with other channels out than in: a learned variance."""
        config, shape = self.model.config, list(noisy.shape)
        given, taken = getattr(config, "out_channels", None), getattr(config, "in_channels", None)
        if given and taken == shape[1]:
            shape[1] = given
        return shape


def _noting_sigmas(set_timesteps: Callable[..., None], heard: Heard) -> Callable[..., None]:
    @functools.wraps(set_timesteps)  # pipelines ask for its parameters
    def noting(*args: Any, **kwargs: Any) -> None:
        heard.own_sigmas |= kwargs.get("sigmas") is not None
        set_timesteps(*args, **kwargs)

    return noting


def _noting_step(step: Callable[..., Any], heard: Heard, count: int) -> Callable[..., Any]:
    @functools.wraps(step)
    def noting(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(step).bind(*args, **kwargs).arguments
        known = sum(len(one.calls) for one in heard.steps)
        heard.steps.append(
            FirstStep(
                calls=tuple(heard.calls[known:]),
                output=given["model_output"].clone(),
                sample=given["sample"].clone(),
                time=float(torch.as_tensor(given["timestep"]).flatten()[0]),
            )
        )
        if len(heard.steps) == count:
            raise _EnoughError
        return step(*args, **kwargs)

    return noting


def _put_back(owner: Any, name: str, value: Any) -> None:
    """An attribute of an instance as it was; None is none of its own."""
    if value is not None:
        setattr(owner, name, value)
    elif name in vars(owner):
        delattr(owner, name)
