"""Evidence: what a plan was searched with, and what it was expected to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsediff.plans.misfit import Reader, check
from sparsediff.plans.records import listed, texts
from sparsediff.plans.values import number, one_of, optional, text, whole

BUDGETS = ("density", "psnr", "speedup")

_MOST = 1e9  # of any figure: more is a broken file


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Where a plan comes from; None, or nothing, for what nobody measured.

    ``model`` folder or Hub id that was searched; ``prompts`` and ``seeds`` of the calibration.
    ``budget`` is what the user named ("density", "psnr" in dB or "speedup") and ``target`` its value;
    ``price`` is the paper's lambda, the error that one whole dense call's time is worth, and
    ``epsilon`` the error above which a head stays dense (Sparse-vDiT §2.2). ``cost_source`` says where
    the times are from: "measured on <device>" or "FLOPs".

    Expected of a run, dense steps included: ``density`` share of block pairs computed,
    ``attention_share`` attention time over that of dense attention, ``speedup`` dense over sparse time;
    ``psnr`` in dB against dense on the calibration. ``device``, ``dtype``, ``versions`` and
    ``command`` of the search.

    Raises SparseError for a value of the wrong kind.
    """

    model: str | None = None
    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    budget: str | None = None
    target: float | None = None
    price: float | None = None
    epsilon: float | None = None
    cost_source: str | None = None
    density: float | None = None
    attention_share: float | None = None
    speedup: float | None = None
    psnr: float | None = None
    device: str | None = None
    dtype: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None

    def __post_init__(self) -> None:
        check(self, EVIDENCE)
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "versions", dict(self.versions))


EVIDENCE: dict[str, Reader[Any]] = {
    "model": optional(text),
    "prompts": listed(text),
    "seeds": listed(whole(0, 2**63 - 1)),
    "budget": optional(one_of(*BUDGETS)),
    "target": optional(number(0, _MOST, above=True)),
    "price": optional(number(0)),
    "epsilon": optional(number(0)),
    "cost_source": optional(text),
    "density": optional(number(0, 1)),
    "attention_share": optional(number(0, _MOST)),
    "speedup": optional(number(0, _MOST, above=True)),
    "psnr": optional(number(-_MOST, _MOST)),
    "device": optional(text),
    "dtype": optional(text),
    "versions": texts,
    "command": optional(text),
}
