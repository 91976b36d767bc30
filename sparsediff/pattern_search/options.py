"""SearchOptions: what a search tries and where it looks, which every unit of its work depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from sparsediff.kernels.errors import SparseError

MIDDLE = 0.3  # density around which patterns are tried when the budget does not name one


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOptions:
    """``density`` around which patterns are tried, and on average that of the trials' trajectory.

    ``starts`` of the step buckets as shares of the run, the first one the end of the dense warm-up;
    ``per_bucket`` steps looked at in each; ``block_size`` tokens; ``dense_layers`` first layers that
    stay dense; ``allow_skip`` lets a few heads be left out; ``online`` lets heads be searched while
    generating; ``compensate`` as in `Method`. Raises SparseError for values that no search can use.
    """

    density: float = MIDDLE
    starts: tuple[float, ...] = (0.2, 0.45, 0.7)
    per_bucket: int = 2
    block_size: int = 64
    dense_layers: int = 0
    allow_skip: bool = False
    online: bool = False
    compensate: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.density, int | float) or not 0 < self.density < 1:
            raise SparseError(f"density={self.density!r}: needs a share of the blocks in (0, 1).")
        for name in ("allow_skip", "online", "compensate"):
            if not isinstance(getattr(self, name), bool):
                raise SparseError(f"{name}={getattr(self, name)!r}: needs True or False.")

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
