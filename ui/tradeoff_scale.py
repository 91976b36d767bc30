"""Scale: where the points of speed against fidelity lie, for the page and for the picture alike."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from sparsediff.ui.tradeoff import Point

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 48, 16, 22, 40
ACROSS, UPWARDS = "speed-up of the denoising loop; 1 is dense", "PSNR, dB"


class Scale:
    """Speed-up across from 0, PSNR upwards in steps of five; identical runs lie on the top edge."""

    def __init__(self, points: Sequence[Point]) -> None:
        heights = [point.psnr for point in points if point.psnr is not None] or [30.0]
        self.low = 5 * floor(min(heights) / 5) - 5
        self.high = 5 * ceil(max(heights) / 5) + 5
        self.most = max(1.25, *(point.speedup for point in points)) * 1.1

    def place(self, point: Point) -> tuple[float, float]:
        """Where a point is drawn."""
        psnr = self.high if point.psnr is None else point.psnr
        return self.across(point.speedup), self._upwards(psnr)

    def across(self, speedup: float) -> float:
        """Where a speed-up lies."""
        return LEFT + (WIDTH - LEFT - RIGHT) * speedup / self.most

    def _upwards(self, psnr: float) -> float:
        share = (psnr - self.low) / (self.high - self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    def levels(self) -> list[tuple[str, float]]:
        """The marks of PSNR and how high they lie."""
        step = 5 * max(1, (self.high - self.low) // 30)
        return [(str(at), self._upwards(at)) for at in range(self.low, self.high + 1, step)]

    def speeds(self) -> list[tuple[str, float]]:
        """The marks of speed-up and where they lie: halves, or whole numbers where those are many."""
        step = 0.5 if self.most < 8 else ceil(self.most / 16)
        return [(f"{n * step:g}", self.across(n * step)) for n in range(int(self.most / step) + 1)]
