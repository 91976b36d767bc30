"""The tables of the pruning page, as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_cells import chance, table  # noqa: E402
from pruning_verdict import joined, percent, title_of  # noqa: E402

Figures = Mapping[str, Any]


def cells(model: Figures) -> str:
    """Of one model every criterion at every ratio, the whole model first."""
    lines = []
    if model["whole"]:
        lines.append(["-", "the whole model", *_figures(model["whole"])])
    for ratio, figures in model["ratios"].items():
        for name, cell in figures["cells"].items():
            lines.append([percent(ratio), title_of(name), *_figures(cell)])
    if not lines:
        return "No row is there yet."
    head = ["given up", "criterion", "parameters given up", "accuracy, %", "answers, %"]
    return table([*head, "loss", "distance", "seeds", "masks took, s"], lines)


def _figures(cell: Figures) -> list[str]:
    return [
        percent(cell["parameters"], 1),
        _spread(cell["accuracy"], 100, 1),
        _spread(cell["answers"], 100, 1),
        _spread(cell["loss"], 1, 4),
        _spread(cell["distance"], 1, 4),
        str(len(cell["seeds"])),
        f"{cell['masks_seconds']:.0f}" if cell["masks_seconds"] else "-",
    ]


def _spread(figure: Figures, times: float, digits: int) -> str:
    mean = f"{times * figure['mean']:.{digits}f}"
    return mean if figure["spread"] is None else f"{mean} ± {times * figure['spread']:.{digits}f}"


def compared(model: Figures) -> str:
    """EcoDiff against the criteria that the claim names, sample by sample."""
    lines = []
    for ratio, figures in model["ratios"].items():
        for rival, one in figures["against"].items():
            if one is None:
                continue
            test, beats, answers = one["right"], one["beats"], one["answers"]
            lines.append(
                [
                    percent(ratio),
                    title_of(rival),
                    f"{one['points']:+.1f}",
                    f"{test['wins']} : {test['losses']}",
                    chance(test["p"]),
                    _word(beats["accuracy"]),
                    f"{one['answers_points']:+.1f}",
                    f"{answers['wins']} : {answers['losses']}",
                    chance(answers["p"]),
                    f"{100 * one['loss_change']:+.1f} %",
                    f"{one['loss_lower_in']} of {len(one['seeds'])}",
                    _word(beats["loss"]),
                ]
            )
    if not lines:
        return "EcoDiff cannot be compared yet."
    head = ["given up", "EcoDiff against", "accuracy, points", "wins : losses", "p", "accuracy"]
    head += ["answers, points", "wins : losses", "p"]
    return table([*head, "loss", "lower in seeds", "loss"], lines)


def _word(sign: int) -> str:
    return {1: "beats", 0: "open", -1: "loses"}[sign]


def times(models: Figures) -> str:
    """Of every timed model what is left of parameters and of time; nothing where none was timed."""
    timed = {name: model for name, model in models.items() if model["times"]}
    if not timed:
        return ""
    lines = [
        [
            name,
            title_of(one["criterion"]) if one["ratio"] else "whole against itself",
            percent(one["ratio"]) if one["ratio"] else "-",
            f"{one['whole_seconds']:.4f}",
            f"{one['parameters']:.3f}",
            f"{one['time']:.3f} ({one['quartiles'][0]:.3f} to {one['quartiles'][1]:.3f})",
            str(one["rounds"]),
        ]
        for name, model in timed.items()
        for one in model["times"]
    ]
    machines = {
        f"{model['machine']['device']}, load {model['machine']['load']}" for model in timed.values()
    }
    head = ["model", "cut by", "given up", "whole, s", "parameters left", "time left", "rounds"]
    return f"""Of one call as the pipeline's first step makes it, whole and cut model in turns: the
median over the rounds of the cut model's time over the whole one's (quartiles), on
{joined(sorted(machines))} before it began.

{table(head, lines)}"""
