"""GenerationResult: the figures of one `sparsediff generate`, as numbers, table and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.quality import Quality
from sparsediff.report import RunReport

SCHEMA = "sparsediff.generate/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds of every repetition of the denoising loop."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.seconds)

    @property
    def iqr(self) -> float | None:
        """Spread of the middle half; None below three repetitions, which say nothing about spread."""
        if len(self.seconds) < 3:
            return None
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GenerationResult:
    """What was generated, how long it took, how far sparse is from dense.

    ``dense`` and ``quality`` and ``dense_frames`` are None when only the sparse video was made. Frames
    are float ``[f, h, w, c]`` in [0, 1]; ``masks`` the last mask of every layer by module name;
    ``plan`` the summary of the plan that was run, if any.
    """

    model: str
    prompt: str
    seed: int
    steps: int
    call: Mapping[str, Any]
    fps: int
    device: str
    device_name: str
    dtype: str
    sparse: Timing
    sparse_frames: Tensor
    report: RunReport
    masks: Mapping[str, BlockMask]
    versions: Mapping[str, str]
    dense: Timing | None = None
    dense_frames: Tensor | None = None
    quality: Quality | None = None
    warmed_up: bool = False
    plan: Mapping[str, Any] | None = None

    @property
    def speedup(self) -> float | None:
        """Dense median / sparse median."""
        return None if self.dense is None else self.dense.median / self.sparse.median

    @property
    def is_image(self) -> bool:
        """Whether the result is one picture and not a video."""
        return len(self.sparse_frames) == 1

    def to_dict(self, outputs: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object; `outputs` are the written files by kind.

        ``psnr`` is null when the videos are ``identical``, because JSON knows no infinity.
        """
        q, dense = self.quality, self.dense
        return {
            "schema": SCHEMA,
            "model": self.model,
            "prompt": self.prompt,
            "seed": self.seed,
            "steps": self.steps,
            "size": self.size,
            "call": dict(self.call),
            "device": self.device,
            "device_name": self.device_name,
            "dtype": self.dtype,
            "dense_seconds": None if dense is None else dense.median,
            "sparse_seconds": self.sparse.median,
            "speedup": self.speedup,
            "n": len(self.sparse.seconds),
            "iqr": {"dense": dense.iqr if dense else None, "sparse": self.sparse.iqr},
            "warmed_up": self.warmed_up,
            "psnr": None if q is None or q.identical else q.psnr,
            "ssim": q.ssim if q else None,
            "flicker": q.flicker if q else None,
            "dense_flicker": q.dense_flicker if q else None,
            "sparse_flicker": q.sparse_flicker if q else None,
            "identical": q.identical if q else None,
            "density": self.report.density,
            "sparse_density": self.report.sparse_density,
            "sparse_calls": self.report.sparse_calls,
            "dense_calls": self.report.dense_calls,
            "fallbacks": dict(self.report.fallbacks),
            "notes": list(self.report.notes),
            "predictions": list(self.report.predictions),
            "method": dict(self.report.method),
            "plan": None if self.plan is None else dict(self.plan),
            "backends": dict(self.report.backends),
            "per_step": self.report.steps,
            "per_layer": self.report.layers,
            "outputs": dict(outputs or {}),
            "versions": dict(self.versions),
        }

    @property
    def size(self) -> dict[str, int]:
        """Pixels and frames of what came out."""
        frames, height, width = self.sparse_frames.shape[:3]
        return {"width": width, "height": height, "frames": frames}
