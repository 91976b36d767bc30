"""Which of diffusers' schedulers a student can be sampled instead of, and what they share."""

from __future__ import annotations

import inspect
from typing import Any

from sparsediff.kernels.errors import SparseError

FLOW = "FlowMatchEulerDiscreteScheduler"
_FLOW_SIGMAS = (  # with use_flow_sigmas, flow matching too
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
)
TABLES = (
    *_FLOW_SIGMAS,
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
)
_SUPPORTED = (
    f"Supported: {FLOW}; with use_flow_sigmas also {', '.join(_FLOW_SIGMAS)}; with a table of noise "
    f"levels {', '.join(TABLES)}."
)


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler is for flow matching: x = (1 - sigma) clean + sigma noise."""
    return type(scheduler).__name__ == FLOW or bool(scheduler.config.get("use_flow_sigmas"))


def unsupported(scheduler: Any, why: str = "") -> SparseError:
    """The error of a scheduler whose steps nothing is trained for, neither students nor masks."""
    name = type(scheduler).__name__
    return SparseError(f"Nothing can be trained for the steps of {name}{why}. {_SUPPORTED}")


def taken(made: Any, config: Any) -> dict[str, Any]:
    """The values of a configuration that a scheduler class takes."""
    names = inspect.signature(made.__init__).parameters
    return {name: config[name] for name in names if name in config}
