"""What --tiny in these samples means: toy pipelines on the CPU, with random weights and no download.

``from tiny import WanPipeline`` gives diffusers' class, but its `from_pretrained` builds the toy
pipeline that the tests have for the Hub id. The rest of a script runs as it stands, at a size and
number of steps that a toy can do. The output is noise: this shows that a script works, not what a
model draws.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import torch

import sparsediff

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))
from tiny_pipelines import FAMILIES

MODELS = {
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": "wan22",
    "hunyuanvideo-community/HunyuanVideo": "hunyuan_video",
    "zai-org/CogVideoX1.5-5B": "cogvideox15",
    "Lightricks/LTX-Video": "ltx",
    "black-forest-labs/FLUX.1-dev": "flux",
}
STEPS = 5
_SAID_BY_THE_SCRIPT = ("prompt", "negative_prompt", "guidance_scale")


class _Toy:
    """In front of a pipeline class: what has to be smaller, or needs a GPU."""

    full_size: type[diffusers.DiffusionPipeline]
    _toy_call: dict[str, Any]

    @classmethod
    def from_pretrained(
        cls, model: str, *, dtype: torch.dtype | dict[str, torch.dtype]
    ) -> diffusers.DiffusionPipeline:
        """The toy pipeline of that model, in float32 whatever `dtype` says."""
        family = FAMILIES[MODELS[model]]
        pipe = family.build()
        if type(pipe) is not cls.full_size:
            raise TypeError(f"{model} is a {type(pipe).__name__}, not a {cls.__name__}.")
        pipe.__class__ = cls
        size = {name: family.call[name] for name in family.call if name not in _SAID_BY_THE_SCRIPT}
        pipe._toy_call = size | {"num_inference_steps": STEPS}
        return pipe

    def to(self, device: str) -> _Toy:
        """Stay on the CPU."""
        return self

    def enable_model_cpu_offload(self) -> None:
        """Everything is on the CPU already."""

    def enable_sparse_attention(self, **options: Any) -> sparsediff.Session:
        """Blocks that fit a toy's few tokens; without the gate, which would run them dense."""
        return sparsediff.enable_sparse_attention(self, **options, block_size=8, gate=False)

    def __call__(self, prompt: str, **options: Any) -> Any:
        """The script's call, at toy size."""
        return super().__call__(prompt, **options | self._toy_call)  # type: ignore[misc]


def __getattr__(name: str) -> type:
    """The toy of a pipeline class of diffusers."""
    if name.startswith("_") or not name.endswith("Pipeline"):
        raise AttributeError(f"module 'tiny' has no attribute {name!r}")
    full_size = getattr(diffusers, name)
    return type(name, (_Toy, full_size), {"full_size": full_size})
