"""DDIM configured for a few steps: the scheduler of a student with a table of noise levels."""

from __future__ import annotations

from typing import Any

import torch

from sparsediff.distill.student.scheduler_kinds import taken, unsupported
from sparsediff.kernels.errors import SparseError

_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_SAME_TABLE = 1e-5  # of alphas_cumprod: schedulers end a zero-SNR table at 0 or at 2**-24


def ddim_student(scheduler: Any, steps: int) -> Any:
    """The scheduler of a student with a table of noise levels; see `student_scheduler`."""
    import diffusers

    config, name = scheduler.config, type(scheduler).__name__
    prediction = config.get("prediction_type")
    if prediction not in _PREDICTIONS:
        raise unsupported(scheduler, f" and prediction_type={prediction!r}")
    if config.get("timestep_type") == "continuous":
        raise unsupported(scheduler, " and timestep_type='continuous'")
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise SparseError(
            f"{name} has rescale_betas_zero_snr and predicts epsilon: at pure noise, where the first "
            f"step is, that says nothing of the clean sample. Use a model that predicts v."
        )
    _check_divides(steps, int(config.num_train_timesteps))
    cogvideox = "snr_shift_scale" in config
    made = diffusers.CogVideoXDDIMScheduler if cogvideox else diffusers.DDIMScheduler
    values = taken(made, config)
    if values.get("trained_betas") is not None:
        values["trained_betas"] = torch.as_tensor(values["trained_betas"]).tolist()
    values |= {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
    student = made(**values | ({} if cogvideox else {"thresholding": False}))
    table, found = scheduler.alphas_cumprod.float(), student.alphas_cumprod.float()
    if not torch.allclose(found, table, atol=_SAME_TABLE, rtol=0):
        raise unsupported(scheduler, f": {made.__name__} makes other noise levels of its values")
    return student


def _check_divides(steps: int, count: int) -> None:
    if count % steps:
        fitting = [number for number in range(1, count + 1) if count % number == 0]
        below = max(number for number in fitting if number < steps)
        above = min(number for number in fitting if number > steps)
        raise SparseError(
            f"steps={steps}: DDIM walks {count} training steps by a whole number of them; needs a "
            f"divisor of {count}: {below} or {above}."
        )
