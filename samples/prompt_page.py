"""The page that `prompt_dependence.py` writes: tables, and an answer in the figures' own words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pattern_overlap import ELSEWHERE, FIXED, HEADS, OWN, PARTS, RANDOM, TIMES, kept, overlaps
from torch import Tensor

DENSITIES = (0.15, 0.3)
LOWEST = 0.1  # share of the heads that the figures in brackets are the mean of
SETTLED = 0.9  # of the way from lot to the best choice: the prompt does not matter
WHOLE = 0.9  # a head that keeps this share of its own choice's mass loses little


def page(masses: Tensor, *, command: str, device: str, used: Mapping[str, str]) -> str:
    """Markdown for ``[prompts, seeds, steps, layers, heads, m, n]``, made by `command`."""
    prompts, seeds, steps, layers, heads, rows, _ = masses.shape
    tables, answers, reached = [], [], 0.0
    for density in DENSITIES:
        iou, share = overlaps(masses, density), kept(masses, density)
        tables += [
            f"## Density {density:g}",
            _table("IoU with", iou),
            _table("share of the mass held by", share),
        ]
        answers.append(_answer(density, iou, share))
        reached = _reached(share)  # at the last density
    parts, found = "\n\n".join(tables), "\n".join(answers)
    return f"""# Do patterns depend on the prompt?

AdaSpa (arXiv 2502.21079) says that they do and searches while generating; Sparse-vDiT (arXiv
2506.03065) says that they scarcely do and searches once, offline. {_verdict(reached)}

{found}

A low IoU alone asks for no online search: a head that looks everywhere equally has no blocks to miss.
What a fixed choice loses in mass is what an online search can win.

Compared are the heaviest key blocks of every row by the exact attention mass, in dense runs:
{prompts} prompts, {seeds} seeds, {steps} steps, {layers} layers of {heads} heads, {rows} x {rows}
blocks of 64 tokens, the guidance branch that sees the prompt. IoU: blocks that both have over blocks
that either has. Means over steps, layers and heads; in brackets that of the tenth of the heads that is
lowest.

{parts}

* **same noise**: the runs share the seed.
* **{FIXED}**: at the same step, the blocks that are heaviest on average in the
  runs of all other prompts from other noise; what a table knows that many prompts were searched for.
* **random blocks**: as many in every row, by lot.

Made by

```bash
{command}
```

on {device}, {", ".join(f"{name} {version}" for name, version in used.items())}.
"""


def _reached(share: Mapping[str, Tensor]) -> float:
    """How far the fixed choice comes from lot to the best choice, in mass held."""
    own, fixed, lot = (float(share[name].mean()) for name in (OWN, FIXED, RANDOM))
    return (fixed - lot) / (own - lot)


def _verdict(reached: float) -> str:
    if reached >= SETTLED:
        return "On this model Sparse-vDiT is right: a fixed choice of blocks loses next to nothing."
    if reached < 0.5:
        return "On this model AdaSpa is right: most of what a search finds, a fixed choice misses."
    return (
        "On this model both are: the very\n"
        "blocks do depend on the prompt and on the noise, as AdaSpa says, but a fixed choice per step, "
        "layer\n"
        "and head holds most of what the best choice would, as Sparse-vDiT needs. The difference is a "
        "few\n"
        "heads that follow the content; the others can be planned."
    )


def _answer(density: float, iou: Mapping[str, Tensor], share: Mapping[str, Tensor]) -> str:
    agree = {name: float(values.mean()) for name, values in iou.items()}
    own, fixed = (share[name].mean(0).flatten() for name in (OWN, FIXED))
    lot = float(share[RANDOM].mean())
    whole = int((fixed >= WHOLE * own).sum())
    worst = (own - fixed).sort(descending=True).indices[: math.ceil(LOWEST * len(own))]
    lines = [
        f"* **Density {density:g}.** The heaviest blocks of two runs of different prompts and noise "
        f"have an IoU of",
        f"  {agree[ELSEWHERE]:.2f}; random blocks {agree[RANDOM]:.2f}, other heads "
        f"{agree[HEADS]:.2f}, neighbouring steps of one run {agree[TIMES]:.2f}.",
        f"  A fixed choice, from other prompts and noise, holds {_percent(fixed.mean())} of the mass, "
        f"the best choice {_percent(own.mean())}, lot {_percent(lot)}:",
        f"  it comes {_percent(_reached(share))} of the way. {whole} of {len(own)} heads keep at least "
        f"{_percent(WHOLE)} of what their best choice holds;",
        f"  the tenth of the heads that loses most holds {_percent(fixed[worst].mean())} instead of "
        f"{_percent(own[worst].mean())}.",
    ]
    return "\n".join(lines)


def _percent(share: Tensor | float) -> str:
    return f"{100 * float(share):.0f} %"


def _table(title: str, found: Mapping[str, Tensor]) -> str:
    """A line per comparison, a column per part of the run."""
    head = f"| {title} | " + " | ".join(f"{part} steps" for part in PARTS) + " |"
    lines = [head, "|---" * (len(PARTS) + 1) + "|"]
    for name, values in found.items():
        cells = [_cell(part) for part in values.tensor_split(len(PARTS))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Tensor) -> str:
    """Mean over steps, layers and heads, and over the heads whose mean over steps is lowest."""
    of_heads = values.mean(0).flatten().sort().values
    lowest = of_heads[: math.ceil(LOWEST * len(of_heads))]
    return f"{of_heads.mean():.3f} ({lowest.mean():.3f})"
