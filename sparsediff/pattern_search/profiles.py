"""The first pass: one dense run of every prompt, and where its attention lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.api import sparse_attention
from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.options import SearchOptions
from sparsediff.pattern_search.units import Statistics, Units
from sparsediff.search import TokenGrid
from sparsediff.search.offline.profile import ProfileRecord, Profiling
from sparsediff.session import Session
from sparsediff.timed_run import Runner

STAGE = "profile"
_OWN = ("frames", "grid", "steps")  # beside the tensors of the record


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiles:
    """The profiles of several prompts, summed in the order of the prompts.

    ``record`` of every layer; ``grid`` of the tokens; ``steps`` denoising steps of a run.
    """

    record: ProfileRecord
    grid: TokenGrid
    steps: int

    @classmethod
    def of(cls, units: Units, prompts: Sequence[int]) -> Profiles:
        """Read the units of these prompts; raises SparseError when their grids differ."""
        records, found = [], set()
        for prompt in prompts:
            state = units.load(STAGE, prompt, without=("frames",))
            grid = _grid(state.pop("grid"))
            found.add((grid, int(state.pop("steps"))))
            records.append(ProfileRecord.from_state(state, grid))
        if len(found) > 1:
            grids = ", ".join(sorted(f"{grid} in {steps} steps" for grid, steps in found))
            raise SparseError(f"The prompts were generated at several sizes: {grids}. Needs one.")
        ((grid, steps),) = found
        return cls(record=ProfileRecord.total(records), grid=grid, steps=steps)


def profile(
    runner: Runner, options: SearchOptions, *, layers: int, keep_frames: bool, backend: str
) -> Statistics:
    """The unit of one prompt; with `keep_frames` also its video, uint8 ``[f, h, w, c]``.

    Raises SparseError when one of the `layers` of the model could not be looked at, and when the
    trials to come could not run on `backend`.
    """
    record = ProfileRecord()
    method = Profiling(steps=options.steps, block_size=options.block_size, record=record)
    with sparse_attention(runner.pipe, method, backend=backend, gate=False) as session:
        frames = runner.run(decode=keep_frames).frames
    require_layers(session, layers, list(record.layers))
    if record.grid is None:  # no layer without a grid; said for the type checker
        raise SparseError("The run had no token grid.")
    state = record.state()
    state["grid"] = torch.tensor(list(record.grid.sizes.values()))
    state["steps"] = torch.tensor(runner.steps)
    if frames is not None:
        state["frames"] = as_bytes(frames)
    return state


def require_layers(session: Session, layers: int, seen: Sequence[int]) -> None:
    """Raise SparseError, with the reason, when a layer was not looked at."""
    missing = sorted(set(range(layers)) - set(seen))
    if not missing:
        return
    names = [session.layers[layer] for layer in missing[:2]]
    reasons = "; ".join(session.log.fallbacks) or "every step that reaches them runs dense"
    raise SparseError(
        f"{len(missing)} of {layers} layers cannot run sparse, the first is {names[0]}: {reasons}. "
        f"Use a larger --size or more --steps."
    )


def as_bytes(frames: Tensor) -> Tensor:
    """Frames in [0, 1] as a written video holds them: uint8."""
    return (frames * 255).round().clamp(0, 255).to(torch.uint8)


def dense_frames(units: Units, prompt: int) -> Tensor:
    """The kept video of a prompt: float ``[f, h, w, c]`` in [0, 1]."""
    return units.load(STAGE, prompt, only=("frames",))["frames"].float() / 255


def _grid(sizes: Tensor) -> TokenGrid:
    frames, height, width, before, after = sizes.tolist()
    return TokenGrid(
        frames=frames, height=height, width=width, text_before=before, text_after=after
    )
