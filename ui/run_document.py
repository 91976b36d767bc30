"""The document of a run: what somebody needs to judge it and to make it again, as plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparsediff.ui.comparison import Compared

RUN = "sparsediff.ui-run/1"
TRADEOFF = "sparsediff.tradeoff/1"
_LONG = ("per_step", "per_layer", "predictions", "outputs")


def run_document(compared: Compared) -> dict[str, Any]:
    """One comparison: chosen settings, figures, attention calls, device and versions."""
    result = compared.result.to_dict()
    figures = {name: value for name, value in result.items() if name not in _LONG}
    figures["model"] = model_name(compared.result.model)
    figures["dense_reused"] = compared.dense_reused
    return {
        "schema": RUN,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "fps": compared.result.fps,
        "settings": asdict(compared.settings),
        "result": figures,
    }


def model_name(model: str) -> str:
    """A Hub id as it is, a folder by its own name: where it lies is nobody else's business."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def tradeoff_document(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All runs of a chart by their documents, the one run last at the end."""
    return {"schema": TRADEOFF, "runs": [dict(run) for run in runs]}
