"""SearchOptions: what a search tries and where it looks, which all of its work depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.search.offline.candidates import CandidateSettings
from sparsediff.search.offline.sampled_steps import SampledSteps

MIDDLE = 0.3  # density around which patterns are tried when the budget does not name one
COSTS = ("measured", "flops")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOptions:
    """``density`` around which patterns are tried, and on average that of the trials' trajectory.

    ``starts`` of the step buckets as shares of the run, the first one the end of the dense warm-up;
    ``per_bucket`` steps looked at in each; ``block_size`` tokens; ``allow_skip`` lets a few heads be
    left out; ``online`` lets heads be searched while generating; ``compensate`` as in `Method`;
    ``cost`` "measured" on this device, or "flops".

    Raises SparseError for values that no search can use.
    """

    density: float = MIDDLE
    starts: tuple[float, ...] = SampledSteps().starts
    per_bucket: int = SampledSteps().per_bucket
    block_size: int = 64
    allow_skip: bool = False
    online: bool = False
    compensate: bool = False
    cost: str = "measured"

    def __post_init__(self) -> None:
        for name in ("allow_skip", "online", "compensate"):
            if not isinstance(getattr(self, name), bool):
                raise SparseError(f"{name}={getattr(self, name)!r}: needs True or False.")
        if self.cost not in COSTS:
            raise SparseError(f"cost={self.cost!r}: needs one of {', '.join(COSTS)}.")
        if type(self.block_size) is not int or self.block_size < 1:
            raise SparseError(f"block_size={self.block_size!r}: needs a whole number of tokens.")
        self.steps, self.candidates  # noqa: B018  (their constructors check the rest)

    @property
    def steps(self) -> SampledSteps:
        """The step buckets and the steps looked at."""
        return SampledSteps(starts=self.starts, per_bucket=self.per_bucket)

    @property
    def candidates(self) -> CandidateSettings:
        """What is tried for every head."""
        return CandidateSettings.around(
            self.density, allow_skip=self.allow_skip, online=self.online
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchOptions:
        """Read what `to_dict` made; an unknown key is an error that names the nearest."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise SparseError(f"options have an unknown key {key!r}.{hint}")
        return cls(**{**values, "starts": tuple(values.get("starts", cls().starts))})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {**asdict(self), "starts": list(self.starts)}
