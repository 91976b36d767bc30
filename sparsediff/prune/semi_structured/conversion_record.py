"""ConversionRecord: which layers became 2:4 layers, which did not, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsediff.distill.whole_file import write_whole
from sparsediff.prune.semi_structured.layer_speed import LayerSpeed

SCHEMA = "sparsediff.semi-structured-conversion/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionRecord:
    """``speeds``: by layer what was measured of its shape; ``dense``: by layer why it stayed dense.

    ``converted``: paths of the layers that did not. ``device`` and ``versions``: where that holds.
    """

    kernel: str
    device: str
    versions: Mapping[str, str]
    converted: tuple[str, ...]
    dense: Mapping[str, str]
    speeds: Mapping[str, LayerSpeed]

    def words(self) -> str:
        """For people, one line a layer after the first."""
        count = len(self.converted) + len(self.dense)
        lines = [
            f"{len(self.converted)} of {count} layers are 2:4 layers now (kernel of {self.kernel}, "
            f"{self.device})."
        ]
        lines += [f"{path}: converted, {self.speeds[path].words()}" for path in self.converted]
        lines += [f"{path}: dense, {why}" for path, why in self.dense.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "schema": SCHEMA,
            "kernel": self.kernel,
            "device": self.device,
            "versions": dict(self.versions),
            "converted": list(self.converted),
            "dense": dict(self.dense),
            "speeds": {path: speed.to_dict() for path, speed in self.speeds.items()},
        }

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all; SparseError when it cannot be written."""
        write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")
