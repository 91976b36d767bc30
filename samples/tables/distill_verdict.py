"""What the figures of the distillation table say about its two claims, in sentences."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_cells import chance, points  # noqa: E402

Figures = Mapping[str, Any]
TEACHER, SPARSE, BORROWED = "teacher-50", "sparse-student", "dense-student-sparse"
WANTED_SPEED, WANTED_POINTS = 5, 5
CERTAIN = 0.05  # p value, and about two standard errors


def verdict(found: Figures) -> str:
    """Is the sparse student fast and as good as the teacher; was training sparse worth it?"""
    if SPARSE not in found["rows"]:
        return "There is no sparse student among the rows yet."
    pairs = {(pair["ours"], pair["others"]): pair for pair in found["pairs"]}
    parts = [_speed(found["rows"][SPARSE]), _accuracy(found["rows"], pairs[SPARSE, TEACHER])]
    if (SPARSE, BORROWED) in pairs:
        parts.append(_trained(pairs[SPARSE, BORROWED]))
    return "\n\n".join(part for part in parts if part)


def _speed(row: Figures) -> str:
    times = row.get("times")
    if times is None:
        return ""
    fast, loop = (times[part]["times_as_fast"] for part in ("whole", "loop"))
    said = "which is what was wanted" if fast >= WANTED_SPEED else f"{WANTED_SPEED} were wanted"
    return (
        f"From prompt to pixels the sparse student is **{fast:.1f} times as fast** as its teacher in\n"
        f"50 steps, {said}; in the denoising loop alone {loop:.1f} times."
    )


def _accuracy(rows: Figures, pair: Figures) -> str:
    gain, test = pair["points"], pair["right"]
    within = "within" if gain["value"] >= -WANTED_POINTS else "**not** within"
    ours, teachers = (100 * rows[name]["all"] for name in (SPARSE, TEACHER))
    return (
        f"It shows all that was asked for in {ours:.1f} % of its videos, the teacher in\n"
        f"{teachers:.1f} % of its own: **{points(gain)} points**, {within} the {WANTED_POINTS} points "
        f"that were allowed.\nIt alone is right in {test['wins']} prompts, the teacher alone in "
        f"{test['losses']} (p {_p(test)})."
    )


def _trained(pair: Figures) -> str:
    """Video-BLADE's claim: training with sparse attention beats making a trained student sparse."""
    signs = [_sign(pair[name]) for name in ("right", "overlap")]
    nearer = pair["nearer"]
    signs.append(0 if abs(nearer["value"]) < 2 * nearer["error"] else (nearer["value"] > 0) * 2 - 1)
    if max(signs) > 0 and min(signs) >= 0:
        said = "**Training with sparse attention was worth it** (Video-BLADE's claim)"
    elif min(signs) < 0 and max(signs) <= 0:
        said = "**Training with sparse attention was not worth it**, against Video-BLADE's claim"
    elif min(signs) < 0:
        said = "**Whether training with sparse attention was worth it depends on the measure**"
    else:
        said = (
            "**These prompts do not show that training with sparse attention was worth it**, which "
            "is\nVideo-BLADE's claim, nor that it was not"
        )
    right, overlap = pair["right"], pair["overlap"]
    less, error = (1000 * nearer[name] for name in ("value", "error"))
    return (
        f"{said}.\nAgainst the same attention on the student that was trained dense, it alone is "
        f"right in\n{right['wins']} prompts, the other alone in {right['losses']} "
        f"(p {_p(right)}); its shape is better in {overlap['wins']}\nand worse in "
        f"{overlap['losses']} (p {_p(overlap)}); its distance to the teacher (x 1000) is less "
        f"by\n{less:.1f} ± {error:.1f}."
    )


def _sign(test: Figures) -> int:
    """1 or -1 where a test is certain that the first or the second is better, else 0."""
    if test["p"] >= CERTAIN:
        return 0
    return 1 if test["wins"] > test["losses"] else -1


def _p(test: Figures) -> str:
    shown = chance(test["p"])
    return shown if shown.startswith("<") else f"= {shown}"
