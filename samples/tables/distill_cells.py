"""The tables of the distillation page, as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_pipelines import ROWS  # noqa: E402

NAMES = ("shape", "color", "motion", "background", "all")
LEAST_P = 0.0001  # what is less does not matter
Figures = Mapping[str, Any]


def title_of(name: str) -> str:
    """The title of a row, or its name where it is no row that is generated."""
    return ROWS[name].title if name in ROWS else name


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    body = ["| " + " | ".join(cells) + " |" for cells in (head, *lines)]
    return "\n".join([body[0], "|---" * len(head) + "|", *body[1:]])


def asked(rows: Figures) -> str:
    """Calls, density and shares of right answers by row."""
    lines = []
    for name, row in rows.items():
        calls = row.get("times", {}).get("calls", row.get("calls_per_video"))
        density = row.get("density")
        facts = [
            "-" if calls is None else f"{calls:g}",
            ("1" if name in ROWS else "-") if density is None else f"{density:.3g}",
        ]
        shares = [f"{100 * row[label]:.1f}" for label in NAMES]
        match = [f"{row[label]:.3f}" for label in ("overlap", "steady")]
        lines.append([title_of(name), *facts, *shares, *match])
    labels = ["shape", "colour", "motion", "background", "all four"]
    return table(["", "calls", "density", *labels, "overlap", "steady"], lines)


def alike(rows: Figures) -> str:
    """Distance to the reference, diversity and flicker by row."""
    lines = []
    for name, row in rows.items():
        spread = row.get("diversity")
        rest = row["still_flicker"]
        lines.append(
            [
                title_of(name),
                "0 (itself)" if name == "teacher-50" else estimate(row["distance"]),
                _plain(spread["features"], 2) if spread else "-",
                _plain(spread["pixels"], 3) if spread else "-",
                thousandths(row["flicker"]),
                "-" if rest is None else thousandths(rest),
            ]
        )
    heads = ["diversity, features", "diversity, pixels", "flicker", "flicker at rest"]
    return table(["", "distance", *heads], lines)


def times(found: Figures) -> str:
    """Seconds by row, with a sentence of how they were taken."""
    timed = {name: row["times"] for name, row in found["rows"].items() if "times" in row}
    if not timed:
        return "Not measured yet."
    lines = []
    for name, row in timed.items():
        cells = [
            f"{_seconds(row[part])} | {row[part]['times_as_fast']:.1f}x"
            for part in ("whole", "loop")
        ]
        lines.append([title_of(name), *cells])
    runs, machine = next(iter(timed.values()))["runs"], found["machine"]
    head = ["", "prompt to pixels, s", "as fast", "denoising loop, s", "as fast"]
    return f"""Of one video, alone: the median of {runs} rounds in which all rows ran in turns (the
distance of the quartiles), and the median over the rounds of the first row's time divided by the
row's, on {machine["device"]}, load {machine["load"]} before it began.

{table(head, lines)}"""


def compared(pairs: list[Figures]) -> str:
    """Two rows a line, prompt by prompt."""
    lines = []
    for pair in pairs:
        tests = [
            cell
            for test in (pair["right"], pair["overlap"])
            for cell in (f"{test['wins']} : {test['losses']}", chance(test["p"]))
        ]
        nearer = pair["nearer"]
        names = f"{title_of(pair['ours'])} : {title_of(pair['others'])}"
        near = estimate(nearer) if nearer else "-"
        lines.append([names, points(pair["points"]), *tests, near])
    head = ["", "all four, points", "wins : losses", "p", "overlap, wins : losses", "p", "nearer"]
    return table(head, lines)


def points(figure: Figures) -> str:
    """A difference in % and its error."""
    return f"{figure['value']:+.1f} ± {figure['error']:.1f}"


def chance(p: float) -> str:
    """A p value."""
    return f"{p:.2g}" if p >= LEAST_P else f"< {LEAST_P}"


def estimate(figure: Figures) -> str:
    """A figure x 1000 and its error."""
    return f"{thousandths(figure['value'])} ± {thousandths(figure['error'])}"


def _plain(figure: Figures, digits: int) -> str:
    return f"{figure['value']:.{digits}f} ± {figure['error']:.{digits}f}"


def thousandths(value: float) -> str:
    """A figure x 1000."""
    return f"{1000 * value:.1f}"


def _seconds(part: Figures) -> str:
    spread = "" if part["iqr"] is None else f" ({part['iqr']:.2f})"
    return f"{part['median']:.2f}{spread}"
