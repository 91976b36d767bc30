"""The figures of the distillation table: of one row, of two rows prompt by prompt, of its times."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_distance import Estimate, closer, kernel_distance, sign_test  # noqa: E402
from distill_measures import Look  # noqa: E402

from sparsediff.generation_result import Timing  # noqa: E402


def row_of(seen: Look, reference: Look) -> dict[str, Any]:
    """Figures of one set of videos."""
    flickers = {
        "flicker": seen.flicker(still=False),
        "still_flicker": seen.flicker(still=True),
    }
    distance = kernel_distance(seen.features, reference.features).to_dict()
    return {
        **seen.scores(),
        "distance": distance,
        **{name: None if x is None else round(x, 6) for name, x in flickers.items()},
        "right": seen.right(),
        "overlaps": [round(verdict.overlap, 4) for verdict in seen.verdicts],
    }


def comparison(ours: Look, others: Look, reference: Look) -> dict[str, Any]:
    """Two rows prompt by prompt: all four right, overlap with the template, distance."""
    right, overlaps = (
        list(zip(*pair, strict=True))
        for pair in (
            (ours.right(), others.right()),
            ([v.overlap for v in ours.verdicts], [v.overlap for v in others.verdicts]),
        )
    )
    gains = torch.tensor([100.0 * (a - b) for a, b in right], dtype=torch.float64)
    points = Estimate(float(gains.mean()), float(gains.std() / len(gains) ** 0.5))
    nearer = (
        None if others is reference else closer(ours.features, others.features, reference.features)
    )
    return {
        "points": points.to_dict(),
        "right": sign_test(right),
        "overlap": sign_test(overlaps),
        "nearer": nearer and nearer.to_dict(),
    }


def facts_of(folder: Path, name: str) -> dict[str, Any]:
    """What ran for a row: command, model calls and mean densities, as far as it was written down."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    facts = json.loads(path.read_text())
    runs = list(facts["runs"].values())
    found = {key: facts[key] for key in ("command",) if key in facts}
    for key in ("calls_per_video", "density", "sparse_density"):
        found[key] = round(statistics.mean(run[key] for run in runs), 4)
    methods = [run["method"] for run in runs if "method" in run]
    return {**found, "method": methods[0]} if methods else found


def times_of(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and quartile distance of whole runs and loops; speed against the reference by round."""
    found: dict[str, Any] = {"runs": len(runs), "calls": runs[0]["calls"]}
    for part in ("whole", "loop"):
        timing = Timing(seconds=tuple(run[part] for run in runs))
        ratios = [slow[part] / run[part] for slow, run in zip(reference, runs, strict=True)]
        found[part] = {
            "median": round(timing.median, 3),
            "iqr": None if timing.iqr is None else round(timing.iqr, 3),
            "times_as_fast": round(statistics.median(ratios), 2),
        }
    return found
