"""Probing: which density to try next, so that a plan meets a figure that only runs can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log

ROUNDS = 6
_CLOSE = 0.06  # two densities whose logarithms differ by less are one
_LEAST_CUT = 0.15  # of the range left that every probe has to take away


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A plan of ``density`` was run and had ``figure``, in dB or times."""

    density: float
    figure: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A figure of at least ``value``, with the cheapest plan that has it, or the densest.

    ``rising``: the figure grows with the density (PSNR), so the cheapest plan is wanted; otherwise it
    falls (speed), and the densest plan is wanted. ``least`` density that a plan can have.
    """

    value: float
    rising: bool
    least: float

    def meets(self, probe: Probe) -> bool:
        """Whether the probe reaches the value."""
        return probe.figure >= self.value

    def best(self, probes: Sequence[Probe]) -> Probe | None:
        """The probe that meets the target at the best density; None when none does."""
        found = [probe for probe in probes if self.meets(probe)]
        best = min if self.rising else max
        return best(found, key=lambda probe: probe.density) if found else None

    def next(self, probes: Sequence[Probe], first: float) -> float | None:
        """The density to try next, `first` to begin with; None when more would change little.

        Between a probe that meets the target and one that does not, the place where the straight line
        through both, over the logarithm of the density, crosses it; outside, the middle.
        """
        if not probes:
            return min(max(first, self.least), 1.0)
        if len(probes) >= ROUNDS:
            return None
        good, bad = self._nearest(probes)
        low, high = self._range(good, bad)
        if high - low < _CLOSE:
            return None
        place = 0.5
        if good is not None and bad is not None and isfinite(good.figure):
            share = (self.value - bad.figure) / (good.figure - bad.figure)
            from_low = share if self.rising else 1 - share
            place = min(max(from_low, _LEAST_CUT), 1 - _LEAST_CUT)
        elif good is None and not self.rising:
            place = 0.0  # whether the cheapest is fast enough decides whether any is
        return self.least if place == 0.0 else exp(low + place * (high - low))

    def _nearest(self, probes: Sequence[Probe]) -> tuple[Probe | None, Probe | None]:
        """The best probe that meets the target, and the one next to it that does not."""
        good = self.best(probes)
        bad = [probe for probe in probes if not self.meets(probe)]
        if good is not None:  # noise may put a bad one beyond the good one
            bad = [p for p in bad if (p.density < good.density) == self.rising]
        nearest = max if self.rising else min
        return good, nearest(bad, key=lambda probe: probe.density) if bad else None

    def _range(self, good: Probe | None, bad: Probe | None) -> tuple[float, float]:
        """Logarithms of the densities between which the best one lies."""
        lower, upper = (bad, good) if self.rising else (good, bad)
        return log(lower.density if lower else self.least), log(upper.density if upper else 1.0)
