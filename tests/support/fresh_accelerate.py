"""accelerate as in a new process."""

from __future__ import annotations

from accelerate.state import AcceleratorState, GradientState, PartialState


def forget_accelerate() -> None:
    """What accelerate keeps for the whole process, which another Accelerator would be held to."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()
