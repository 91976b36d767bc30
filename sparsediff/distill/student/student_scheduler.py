"""The student's scheduler: a stock diffusers class whose configuration alone makes the step grid."""

from __future__ import annotations

from typing import Any

from sparsediff.distill.student.ddim_scheduler import ddim_student
from sparsediff.distill.student.flow_scheduler import flow_student
from sparsediff.distill.student.scheduler_kinds import FLOW, TABLES, is_flow, unsupported
from sparsediff.kernels.errors import SparseError


def student_scheduler(
    scheduler: Any, steps: int, shift: float | None = None, *, own_sigmas: bool = False
) -> Any:
    """A stock scheduler that visits a trailing grid of `steps` steps: from pure noise, none wasted.

    `scheduler` is the teacher's; it stays as it is. Flow matching becomes FlowMatchEuler with sigmas
    s u / (1 + (s - 1) u), u = 1, (K-1)/K, ..., 1/K; `shift` is s, by default the teacher's. Others
    become DDIM, or CogVideoXDDIM, with the same table, trailing timesteps, nothing clipped, and the
    last step ending at the clean sample. `own_sigmas`: the pipeline gives its scheduler sigmas, as
    Flux, HunyuanVideo and LTX do; their grid is trailing already, so the configuration stays. So it
    does with ``use_dynamic_shifting``.

    Raises SparseError for a scheduler of another kind, and for a number of steps that cannot be had.
    """
    if type(scheduler).__name__ not in (FLOW, *TABLES):
        raise unsupported(scheduler)
    count = int(scheduler.config.num_train_timesteps)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= count:
        raise SparseError(
            f"steps={steps!r}: needs a whole number from 1 to {count}, such as 4 or 8."
        )
    if is_flow(scheduler):
        return flow_student(scheduler, steps, shift, own_sigmas=own_sigmas)
    if shift is not None or own_sigmas:
        raise SparseError(
            f"{type(scheduler).__name__} is not a flow-matching scheduler, so it takes neither a shift "
            f"nor sigmas; leave shift and own_sigmas out."
        )
    return ddim_student(scheduler, steps)
