"""Conditions: what a model is told besides noise and timestep, recorded from its pipeline's own call.

So every pipeline is understood alike: prompts, pooled embeddings, positions and guidance embeddings
come as the pipeline makes them, and nothing here knows a family.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.distill.tree import Tree, halves, joined, same, selected
from sparsediff.kernels.errors import SparseError

_NOISY = ("hidden_states", "sample")
_TIMES = ("timestep", "timesteps")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conditions:
    """The keyword arguments of a batch of prompts: with the prompt, and without for guidance.

    ``negative`` is None where the pipeline makes no second prediction. ``batched`` names the leaves
    whose first dimension is the batch.
    """

    positive: Mapping[str, Tree]
    negative: Mapping[str, Tree] | None
    batched: frozenset[str]

    def select(self, items: Tensor) -> Conditions:
        """Those of some items ``[n]`` of the batch, repeated where an item is named twice."""
        return self._each(lambda side: selected(side, items, self.batched))

    def to(self, device: torch.device | str) -> Conditions:
        """The same on a device."""
        return self._each(lambda side: joined([side], frozenset(), device=device))

    def _each(self, change: Callable[[Any], Any]) -> Conditions:
        return Conditions(
            positive=change(self.positive),
            negative=None if self.negative is None else change(self.negative),
            batched=self.batched,
        )

    @classmethod
    def stack(cls, several: Sequence[Conditions]) -> Conditions:
        """One batch of several; SparseError when their shapes differ."""
        first = several[0]

        def side(name: str) -> Any:
            return joined([getattr(one, name) for one in several], first.batched)

        negative = None if first.negative is None else side("negative")
        return cls(positive=side("positive"), negative=negative, batched=first.batched)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Call:
    """One call of the model as the pipeline made it."""

    noisy: Tensor
    timestep: Tensor
    rest: Mapping[str, Tree]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inputs:
    """How a pipeline calls its model: shape ``[...]`` of one sample, what the timestep is told in.

    ``noisy_name`` and ``time_name`` are the model's own names of the two; the model is told the
    scheduler's timestep times ``time_scale``.
    """

    shape: tuple[int, ...]
    noisy_name: str
    time_name: str
    time_scale: float


class ConditionRecorder:
    """Calls a pipeline whose model answers with zeros, and keeps what the model was told."""

    def __init__(self, pipe: Any, model: nn.Module, call: Mapping[str, Any], *, steps: int) -> None:
        self.pipe = pipe
        self.model = model
        self.call = {**call, "num_inference_steps": steps, "output_type": "latent"}
        self.names = tuple(inspect.signature(type(model).forward).parameters)[1:]
        self.noisy_name = next((n for n in _NOISY if n in self.names), "")
        self.time_name = next((n for n in _TIMES if n in self.names), "")
        if not self.noisy_name or not self.time_name:
            raise SparseError(
                f"{type(model).__name__} takes {', '.join(self.names)}; distillation needs a model "
                f"that takes noisy latents ({' or '.join(_NOISY)}) and a timestep."
            )
        self.own_sigmas = False  # whether the pipeline gives its scheduler the noise levels
        one, two = (self._first_step([""] * count, {}) for count in (1, 2))
        self.batched = _batched(one[0].rest, two[0].rest)
        self.inputs = self._inputs(one[0])

    def record(self, prompt: str) -> Conditions:
        """The conditions of one prompt, on the CPU."""
        calls = self._first_step([prompt], {})
        if len(calls) == 1 and len(calls[0].noisy) == 1:
            return self._conditions(calls[0].rest, None)
        alone = self._first_step([prompt], {"guidance_scale": 1.0})
        if len(alone) != 1:
            raise SparseError(
                f"{type(self.pipe).__name__} calls its model {len(alone)} times a step without "
                f"guidance; distillation cannot tell the predictions apart."
            )
        sides = [call.rest for call in calls]
        if len(calls) == 1:
            sides = list(halves(calls[0].rest, self.batched))
        positive = [side for side in sides if same(side, alone[0].rest)]
        if len(sides) != 2 or len(positive) != 1:
            raise SparseError(
                f"{type(self.pipe).__name__} makes {len(sides)} predictions a step, of which "
                f"{len(positive)} are of the prompt; distillation needs one with it and one without. "
                f"Use another prompt than the negative one, and guidance_scale > 1."
            )
        negative = sides[1] if positive[0] is sides[0] else sides[0]
        return self._conditions(positive[0], negative)

    def _conditions(self, positive: Any, negative: Any) -> Conditions:
        return Conditions(positive=positive, negative=negative, batched=self.batched).to("cpu")

    def _first_step(self, prompts: list[str], changes: Mapping[str, Any]) -> list[Call]:
        """The calls of the first step of a run."""
        calls: list[Call] = []
        with torch.no_grad(), self._listening(calls):
            self.pipe(prompt=prompts, **{**self.call, **changes})
        if not calls:
            raise SparseError(f"{type(self.pipe).__name__} ended without calling its model.")
        first = calls[0].timestep.flatten()[0]
        return [call for call in calls if call.timestep.flatten()[0] == first]

    @contextmanager
    def _listening(self, calls: list[Call]) -> Iterator[None]:
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        def answer(*args: Any, **kwargs: Any) -> Any:
            told = dict(zip(self.names, args, strict=False)) | kwargs
            told.pop("return_dict", None)
            noisy, timestep = told.pop(self.noisy_name), told.pop(self.time_name)
            calls.append(Call(noisy=noisy, timestep=torch.as_tensor(timestep), rest=told))
            return Transformer2DModelOutput(sample=torch.zeros_like(noisy))

        scheduler, before = self.pipe.scheduler, vars(self.model).get("forward")
        self.model.forward = answer
        scheduler.set_timesteps = self._noting_sigmas(scheduler.set_timesteps)
        bar = getattr(self.pipe, "_progress_bar_config", {})
        self.pipe.set_progress_bar_config(disable=True)
        try:
            yield
        finally:
            self.pipe.set_progress_bar_config(**{"disable": False, **bar})
            del self.model.forward, scheduler.set_timesteps
            if before is not None:
                self.model.forward = before

    def _noting_sigmas(self, set_timesteps: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(set_timesteps)  # pipelines ask for its parameters
        def noting(*args: Any, **kwargs: Any) -> None:
            self.own_sigmas |= kwargs.get("sigmas") is not None
            set_timesteps(*args, **kwargs)

        return noting

    def _inputs(self, call: Call) -> Inputs:
        timestep = call.timestep
        if timestep.ndim > 1 or (timestep.ndim and len(timestep) != len(call.noisy)):
            raise SparseError(
                f"{type(self.pipe).__name__} gives its model timesteps {list(timestep.shape)}, one for "
                f"each frame or token; distillation needs one for each sample."
            )
        scale = float(timestep.flatten()[0]) / float(self.pipe.scheduler.timesteps[0])
        return Inputs(
            shape=tuple(call.noisy.shape[1:]),
            noisy_name=self.noisy_name,
            time_name=self.time_name,
            time_scale=round(scale, 6),
        )


def _batched(one: Mapping[str, Tree], two: Mapping[str, Tree], path: str = "") -> frozenset[str]:
    """Paths of the leaves that are twice as long for two prompts as for one."""
    found: set[str] = set()
    for name, value in _items(one):
        here, other = f"{path}/{name}", dict(_items(two))[name]
        if isinstance(value, Mapping | list | tuple):
            found |= _batched(value, other, here)  # type: ignore[arg-type]
        elif isinstance(value, Tensor) and value.ndim and len(other) == 2 * len(value):
            found.add(here)
    return frozenset(found)


def _items(tree: Any) -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        return list(tree.items())
    return [(str(number), value) for number, value in enumerate(tree)]
