"""FlowMatchEuler configured for a few steps: the scheduler of a flow-matching student."""

from __future__ import annotations

from typing import Any

from sparsediff.distill.student.scheduler_kinds import taken, unsupported
from sparsediff.distill.student.trailing_shift import positive, trailing_shift
from sparsediff.kernels.errors import SparseError

_SPECIAL_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def flow_student(scheduler: Any, steps: int, shift: float | None, *, own_sigmas: bool) -> Any:
    """The scheduler of a flow-matching student; see `student_scheduler`."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = scheduler.config
    _refuse_other_flows(scheduler)
    dynamic = bool(config.get("use_dynamic_shifting"))
    values = taken(FlowMatchEulerDiscreteScheduler, config) | {"stochastic_sampling": False}
    if dynamic and shift is not None:
        raise SparseError(
            f"shift={shift!r}: this {type(scheduler).__name__} has use_dynamic_shifting: the pipeline "
            f"computes its shift from the size. Leave shift out."
        )
    found = getattr(scheduler, "shift", config.get("flow_shift", 1.0)) if shift is None else shift
    values["shift"] = positive(found)
    if dynamic or own_sigmas:
        if special := [name for name in _SPECIAL_SIGMAS if values.get(name)]:
            raise unsupported(scheduler, f" and {special[0]}, which changes the pipeline's sigmas")
        return FlowMatchEulerDiscreteScheduler(**values)
    if config.get("shift_terminal") is not None and shift is None:
        raise SparseError(
            f"This {type(scheduler).__name__} has shift_terminal={config.shift_terminal}: it is a "
            f"student's already, or made by hand, and does not say the shift of its model. Pass shift, "
            f"such as 8.0 of Wan 2.1 at 832x480."
        )
    made, terminal = trailing_shift(values["shift"], steps, int(config.num_train_timesteps))
    values |= dict.fromkeys(_SPECIAL_SIGMAS, False)
    values |= {"shift": made, "shift_terminal": terminal}
    return FlowMatchEulerDiscreteScheduler(**values)


def _refuse_other_flows(scheduler: Any) -> None:
    config = scheduler.config
    if config.get("invert_sigmas"):  # Mochi
        raise unsupported(
            scheduler, " and invert_sigmas: its model counts noise the other way round"
        )
    prediction = config.get("prediction_type", "flow_prediction")
    if prediction != "flow_prediction":
        raise unsupported(scheduler, f", use_flow_sigmas and prediction_type={prediction!r}")
