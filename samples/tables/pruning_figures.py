"""The figures of the pruning table: of a criterion over its seeds, of two in pairs, of times."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_distance import sign_test  # noqa: E402
from pruning_models import CRITERIA, RATIOS  # noqa: E402
from pruning_rows import WHOLE  # noqa: E402
from pruning_rows_found import Facts, Key  # noqa: E402

OURS, RIVALS = "ecodiff", ("magnitude", "wanda", "random")
CERTAIN = 0.05  # p value
LEAST_SEEDS = 2


def cell(rows: Sequence[Facts]) -> dict[str, Any]:
    """One criterion at one ratio over its seeds: means, spreads, what it gave up."""
    found: dict[str, Any] = {"seeds": [row["seed"] for row in rows]}
    found["accuracy"] = _spread([statistics.mean(c["right"] for c in row["cases"]) for row in rows])
    for name in ("answers", "overlap"):
        found[name] = _spread([statistics.mean(c[name] for c in row["cases"]) for row in rows])
    for name in ("loss", "dense", "distance"):
        found[name] = _spread([row["loss"][name] for row in rows])
    for name in ("heads", "ffn", "parameters"):
        shares = [row["given_up"][name]["share"] for row in rows if name in row["given_up"]]
        found[name] = round(statistics.mean(shares), 4) if shares else 0.0
    spent = [row["times"]["masks"] for row in rows if "masks" in row["times"]]
    found["masks_seconds"] = max((one["seconds"] for one in spent), default=0.0)
    return found


def against(ours: Mapping[int, Facts], others: Mapping[int, Facts]) -> dict[str, Any] | None:
    """The rows of EcoDiff and of another criterion by seed; None where no seed has both.

    Accuracy in pairs of the same prompt and noise, the loss in pairs of the same samples and noise.
    ``beats``: 1 or -1 where EcoDiff is certain to be better or worse, else 0: by accuracy where the
    sign test says so, by loss where all seeds agree, of which there are two at least.
    """
    seeds = sorted(set(ours) & set(others))
    if not seeds:
        return None
    pairs = [
        (a, b)
        for seed in seeds
        for a, b in zip(ours[seed]["cases"], others[seed]["cases"], strict=True)
    ]
    right = [(int(a["right"]), int(b["right"])) for a, b in pairs]
    answers = [(a["answers"], b["answers"]) for a, b in pairs]
    test = sign_test(right)
    losses = [(ours[s]["loss"]["loss"], others[s]["loss"]["loss"]) for s in seeds]
    lower, higher = (sum(sign * a < sign * b for a, b in losses) for sign in (1, -1))
    enough = len(seeds) >= LEAST_SEEDS
    change = sum(a for a, _ in losses) / sum(b for _, b in losses) - 1
    return {
        "seeds": seeds,
        "points": _points(right),
        "right": test,
        "answers_points": _points(answers),
        "answers": sign_test(answers),
        "loss_change": round(change, 4),
        "loss_lower_in": lower,
        "beats": {
            "accuracy": _sign(test) if test["p"] < CERTAIN else 0,
            "loss": int(enough and lower == len(seeds)) - int(enough and higher == len(seeds)),
        },
    }


def ratio_figures(found: Mapping[Key, Facts], ratio: float) -> dict[str, Any]:
    """All cells at one ratio, and EcoDiff against the others that the claim names."""
    rows = {
        name: {seed: facts for (c, r, seed), facts in found.items() if (c, r) == (name, ratio)}
        for name in CRITERIA
    }
    return {
        "cells": {name: cell(list(some.values())) for name, some in rows.items() if some},
        "against": {name: against(rows[OURS], rows[name]) for name in RIVALS},
    }


def model_figures(found: Mapping[Key, Facts]) -> dict[str, Any]:
    """The whole model, and what is left of it at every ratio."""
    whole = [facts for (criterion, _, _), facts in found.items() if criterion == WHOLE]
    return {
        "whole": cell(whole) if whole else None,
        "ratios": {f"{ratio:g}": ratio_figures(found, ratio) for ratio in RATIOS},
        "cpu_seconds": round(sum(map(_spent, found.values())), 1),
    }


def times_figures(timed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of every timed row the share of parameters and of time that is left, with its quartiles."""
    lines = []
    for name, row in timed["rows"].items():
        ratios = [cut / whole for whole, cut in row["rounds"]]
        low, high = _quartiles(ratios)
        lines.append(
            {
                "row": name,
                "criterion": row.get("criterion", WHOLE),
                "ratio": row.get("ratio", 0.0),
                "rounds": len(ratios),
                "whole_seconds": round(statistics.median(whole for whole, _ in row["rounds"]), 5),
                "parameters": round(row.get("parameters", 1.0), 4),
                "time": round(statistics.median(ratios), 4),
                "quartiles": [round(low, 4), round(high, 4)],
            }
        )
    return lines


def _spent(row: Facts) -> float:
    parts: list[Any] = [*row["times"].values(), *row["runs"].values()]
    return float(sum(part["cpu_seconds"] for part in parts))


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds; None of one seed, which says nothing about it."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": round(statistics.mean(values), 6),
        "spread": None if spread is None else round(spread, 6),
        "values": [round(value, 6) for value in values],
    }


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _points(pairs: Sequence[tuple[float, float]]) -> float:
    return round(100 * statistics.mean(a - b for a, b in pairs), 2)


def _sign(test: Mapping[str, float]) -> int:
    return (test["wins"] > test["losses"]) - (test["wins"] < test["losses"])
