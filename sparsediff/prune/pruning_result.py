"""PruningResult: what a pruning did, for its report and for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsediff.generation_result import Timing
from sparsediff.prune.pruning import PruneSettings, Pruning

SCHEMA = "sparsediff.prune/1"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One prompt before and after: frames ``[f, h, w, 3]`` in [0, 1], and the times of both loops."""

    prompt: str
    seed: int
    dense: Tensor
    pruned: Tensor
    dense_time: Timing
    pruned_time: Timing

    @property
    def speedup(self) -> float:
        """Dense time over pruned time, of medians."""
        return self.dense_time.median / self.pruned_time.median


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PruningResult:
    """``model``: its name; ``checked``: whether the cut model was run beside the masked one.

    ``curve``: the lines of a learning's log, empty for criteria that learn nothing.
    """

    model: str
    component: str
    settings: PruneSettings
    pruning: Pruning
    checked: bool
    samples: Sequence[Sample] = ()
    curve: Sequence[Mapping[str, float]] = ()
    fps: int = 16
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values, without pictures."""
        settings = self.settings
        return {
            "schema": SCHEMA,
            "model": self.model,
            "component": self.component,
            "criterion": settings.criterion.to_dict(),
            "target": list(settings.target),
            "ratio": settings.ratio,
            "scope": settings.chosen_scope,
            "heads_multiple_of": settings.heads_multiple_of,
            "least": settings.least,
            "given_up": self.pruning.given_up.to_dict(),
            "layers": self.pruning.layers(),
            "checked": self.checked,
            "curve": [dict(line) for line in self.curve],
            "samples": [
                {
                    "prompt": one.prompt,
                    "seed": one.seed,
                    "dense_seconds": [round(s, 4) for s in one.dense_time.seconds],
                    "pruned_seconds": [round(s, 4) for s in one.pruned_time.seconds],
                }
                for one in self.samples
            ],
            "command": self.command,
            "versions": dict(self.versions),
        }


def read_curve(path: Path) -> list[dict[str, float]]:
    """The numbers of a training's log.jsonl; nothing where there is none, or of a line cut short."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # a full disk left a part of it
            continue
        if isinstance(line, dict):
            numbers = {k: v for k, v in line.items() if type(v) in {int, float} and isfinite(v)}
            found.append(numbers)
    return found
