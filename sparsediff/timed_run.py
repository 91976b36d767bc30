"""Runner: one pipeline called again and again with the same seed, its denoising loop timed."""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.models import denoisers
from sparsediff.step_watch import Watcher, watched


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedRun:
    """``seconds`` of the denoising loop; ``frames`` float ``[f, h, w, c]`` in [0, 1], if decoded."""

    seconds: float
    frames: Tensor | None


class Runner:
    """Calls one pipeline with one recipe, prompt and seed.

    Every run starts from the same noise: a new CPU generator with the same seed. Raises SparseError
    when the pipeline does not take an argument of the recipe, and when its own check refuses one.
    `watcher` is told of every step, and may end the run.
    """

    def __init__(
        self,
        pipe: Any,
        recipe: GenerationRecipe,
        *,
        prompt: str,
        seed: int,
        device: str,
        bars: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        accepted = inspect.signature(type(pipe).__call__).parameters
        for name in recipe.call:
            if name not in accepted:
                raise SparseError(
                    f"{type(pipe).__name__} takes no argument {name!r}. Leave it out; it takes "
                    f"{', '.join(n for n in accepted if n != 'self')}."
                )
        self.pipe = pipe
        self.recipe = recipe
        self.prompt = prompt
        self.seed = seed
        self.device = torch.device(device)
        self.bars = bars
        self.watcher = watcher
        self.label = ""  # what the progress bar says

    def run(self, *, decode: bool = True, steps: int | None = None) -> TimedRun:
        """Generate once, in `steps` steps if given; without `decode` only the time counts."""
        call = dict(self.recipe.call)
        if steps is not None:
            call["num_inference_steps"] = steps
        self.pipe.set_progress_bar_config(desc=self.label, disable=not self.bars, file=sys.stderr)
        clock = _Clock(self.device)
        watching = watched(self.pipe, self.watcher)
        with self._autocast(), watching, _timing(self.pipe, clock), _explained(self.pipe):
            output = self.pipe(
                prompt=self.prompt,
                generator=torch.Generator("cpu").manual_seed(self.seed),
                output_type="np" if decode else "latent",
                **call,
            )
        return TimedRun(seconds=clock.seconds(), frames=frames_of(output) if decode else None)

    @property
    def steps(self) -> int:
        """Denoising steps of the last run."""
        return len(self.pipe.scheduler.timesteps)

    def _autocast(self) -> Any:
        if self.recipe.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.autocast))


class _Clock:
    """Time between the first `start` and the last `stop`, on the GPU's time line if there is one."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._first: Any = None
        self._last: Any = None

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, *_: Any) -> None:
        """Note the beginning, once."""
        if self._first is None:
            self._first = self._now()

    def stop(self, *_: Any) -> None:
        """Note an end; a later one replaces it."""
        self._last = self._now()

    def seconds(self) -> float:
        """The time between; raises SparseError when nothing ran."""
        if self._first is None or self._last is None:
            raise SparseError("The pipeline ended without calling its denoising model.")
        if not self._cuda:
            return float(self._last - self._first)
        torch.cuda.synchronize()
        return float(self._first.elapsed_time(self._last)) / 1000


@contextmanager
def _timing(pipe: Any, clock: _Clock) -> Iterator[None]:
    """Time from the first call of a denoiser to the end of the last: no encoding, no decoding."""
    hooks = []
    for model in denoisers(pipe).values():
        hooks += [model.register_forward_pre_hook(clock.start)]
        hooks += [model.register_forward_hook(clock.stop)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _explained(pipe: Any) -> Iterator[None]:
    """What the pipeline's own check says about the arguments, as SparseError."""
    try:
        yield
    except ValueError as error:
        frames = traceback.walk_tb(error.__traceback__)
        if not any(frame.f_code.co_name == "check_inputs" for frame, _ in frames):
            raise
        raise SparseError(
            f"{type(pipe).__name__} refuses this call: {str(error).strip().rstrip('.')}. Change that "
            f"argument; `sparsediff doctor --model MODEL --size WIDTHxHEIGHTxFRAMES` checks a size."
        ) from error


def frames_of(output: Any) -> Tensor:
    """The first video or the first image of a pipeline's output, ``[f, h, w, c]`` in [0, 1]."""
    if getattr(output, "frames", None) is not None:
        frames = torch.as_tensor(output.frames[0])
    else:
        frames = torch.as_tensor(output.images[:1])
    return frames.float()
