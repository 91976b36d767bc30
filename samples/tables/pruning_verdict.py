"""What the figures of the pruning table say about EcoDiff's claim and about time, in sentences."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_figures import RIVALS  # noqa: E402
from pruning_rows import WHOLE  # noqa: E402

Figures = Mapping[str, Any]
TITLES = {
    "ecodiff": "EcoDiff",
    "fisher": "Fisher",
    "magnitude": "magnitude",
    "wanda": "Wanda",
    "owl": "OWL",
}
MEASURES = {"accuracy": "caption accuracy", "loss": "denoising loss"}


def title_of(criterion: str) -> str:
    """A criterion as it is written."""
    return TITLES.get(criterion, criterion)


def percent(share: float | str, digits: int = 0) -> str:
    """A share in %."""
    return f"{100 * float(share):.{digits}f} %"


def joined(words: list[str]) -> str:
    """Such as "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def verdict(found: Figures) -> str:
    """Did EcoDiff beat magnitude, Wanda and random everywhere; if not, where not."""
    cases = [
        (f"{name}, {percent(ratio)}", rival, measure, compared and compared["beats"][measure])
        for name, model in found["models"].items()
        for ratio, figures in model["ratios"].items()
        for rival, compared in figures["against"].items()
        for measure in MEASURES
    ]
    signs = [sign for *_, sign in cases]
    rivals = joined([title_of(rival) for rival in RIVALS])
    lines = [_claim(signs, rivals)]
    if set(signs) == {None}:
        return lines[0]
    lines.append("")
    for place in dict.fromkeys(case[0] for case in cases):
        some = [case[1:] for case in cases if case[0] == place]
        parts = [f"{MEASURES[m]}: {_place([c for c in some if c[1] == m])}" for m in MEASURES]
        lines.append(f"* {place}, by {'; by '.join(parts)}.")
    return "\n".join(lines)


def _claim(signs: list[Any], rivals: str) -> str:
    won, lost, absent = signs.count(1), signs.count(-1), signs.count(None)
    open_ = len(signs) - won - lost - absent
    if won == len(signs):
        said = f"**EcoDiff beats {rivals} everywhere**, in all {won} comparisons."
    elif absent == len(signs):
        said = f"**Whether EcoDiff beats {rivals} is not known yet**: no rows can be compared."
    elif absent and not lost and not open_:
        said = f"**Whether EcoDiff beats {rivals} is not known yet.**"
    elif lost > won:
        said = f"**EcoDiff does not beat {rivals}: it loses more often than it wins.**"
    elif lost:
        said = f"**EcoDiff does not beat {rivals} everywhere.**"
    else:
        said = f"**EcoDiff is not shown to beat {rivals} everywhere.**"
    if len(signs) in {won, absent}:
        return said
    counted = f"Of {len(signs)} comparisons it wins {won} and loses {lost}, {open_} are open"
    return f"{said}\n{counted}{f', and for {absent} rows are missing' if absent else ''}."


def _place(cases: list[tuple[str, str, Any]]) -> str:
    words = {1: "beats", -1: "loses to", 0: "open against", None: "not compared yet with"}
    parts = []
    for sign, word in words.items():
        those = [title_of(rival) for rival, _, found in cases if found == sign]
        if those:
            parts.append(f"{word} {joined(those)}")
    return ", ".join(parts)


def time_verdict(found: Figures) -> str:
    """What cutting takes off the time, against what it takes off the parameters."""
    lines = []
    for name, model in found["models"].items():
        for ratio in model["ratios"]:
            some = [
                one
                for one in model["times"]
                if one["criterion"] != WHOLE and f"{one['ratio']:g}" == ratio
            ]
            if some:
                lines.append(_gain(f"{name}, {percent(ratio)}", some))
    return "\n".join(lines) if lines else "Not measured yet."


def _gain(place: str, rows: list[Figures]) -> str:
    parameters = statistics.mean(1 - row["parameters"] for row in rows)
    time = statistics.mean(1 - row["time"] for row in rows)
    return (
        f"* {place}: {percent(parameters, 1)} of the parameters less, {percent(time, 1)} of the time "
        f"less ({time / parameters:.2f} of the parameters' gain), mean of {len(rows)} cut models."
    )
