"""RunFigures: the figures of one comparison, from the run itself or from the file it was kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsediff.plans.misfit import Reader
from sparsediff.plans.records import record
from sparsediff.plans.values import flag, number, optional, whole
from sparsediff.ui.comparison import Compared

_MOST = 1e9  # of any figure: more is a broken file


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """What is shown under the player, by the names and units of `sparsediff generate --json`.

    None for what was not measured; ``psnr`` (dB) also where the videos are ``identical``.
    ``dense_reused``: whether the dense half is an earlier run's. ``frames`` is 1 for a picture.
    """

    sparse_seconds: float
    density: float
    sparse_density: float
    sparse_calls: int
    frames: int
    dense_seconds: float | None = None
    speedup: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    flicker: float | None = None
    identical: bool | None = None
    dense_reused: bool = False

    @classmethod
    def of(cls, compared: Compared) -> RunFigures:
        """The figures of a comparison."""
        document = compared.result.to_dict() | {"dense_reused": compared.dense_reused}
        return run_figures(document, "")


_READERS: dict[str, Reader[Any]] = {
    "sparse_seconds": number(0, _MOST),
    "density": number(0, 1),
    "sparse_density": number(0, 1),
    "sparse_calls": whole(0, 2**53),
    "dense_seconds": optional(number(0, _MOST)),
    "speedup": optional(number(0, _MOST)),
    "psnr": optional(number(-_MOST, _MOST)),
    "ssim": optional(number(-_MOST, _MOST)),
    "flicker": optional(number(-_MOST, _MOST)),
    "identical": optional(flag),
    "dense_reused": flag,
    "frames": whole(1, 2**31),
}
_record = record(RunFigures, _READERS)


def run_figures(value: object, path: str) -> RunFigures:
    """Read the document of a run, which holds much else too; raises Misfit."""
    if not isinstance(value, Mapping):
        return _record(value, path)  # which says what it is instead
    size = value.get("size")
    frames = size.get("frames") if isinstance(size, Mapping) else None
    return _record(
        {name: value[name] for name in _READERS if name in value} | {"frames": frames}, path
    )
