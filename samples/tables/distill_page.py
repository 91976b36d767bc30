"""The page of the distillation table: Markdown of the figures that `distill_table.py` gathers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from distill_cells import alike, asked, compared, estimate, thousandths, times  # noqa: E402
from distill_pipelines import ROWS  # noqa: E402
from distill_rows import DIVERSITY_PROMPTS, DIVERSITY_SEEDS, FIRST_SEED  # noqa: E402
from distill_verdict import verdict  # noqa: E402

Figures = Mapping[str, Any]


def page(found: Figures, *, image: str) -> str:
    """The whole page; `image` is the picture's file name beside it."""
    rows, network = found["rows"], found["network"]
    right = ", ".join(f"{name} {100 * share:.0f} %" for name, share in network["right"].items())
    return f"""# A distilled student of the sample model

{verdict(found)}

Every row is of the same {found["prompts"]} prompts and the same seeds, in float32: prompt n of
`samples/prompts.txt` from noise {FIRST_SEED} + n, from 0 on. `rendered` is what the prompts mean, drawn
by the program whose clips the teacher was trained on.

![Frames of one prompt and seed by row]({image})

## What was asked for

In % of the videos, by the judge `samples/train/classify.py`, which matches templates. Calls: of the
denoising model for a video, guidance being a call of its own. Density: of the attention computed.

{asked(rows)}

* **overlap**: intersection over union of the shape with the best template; **steady**: frames that
  agree on the shape.

## Like the teacher's?

{alike(rows)}

* **distance**: squared maximum mean discrepancy x 1000 to the videos of the teacher in 50 steps, cubic
  polynomial kernel, over features; 0 on average for another set of the same model. With it the
  standard error (jackknife over prompts). Videos of one prompt are not compared with each other, so
  that shared noise does not count. One half of the teacher's prompts against the other half, at
  random, comes out at 0 ± {thousandths(found["halves"]["error"])}; prompts drawn twice by the
  renderer at {estimate(found["drawn_again"])}.
* The features are those of a network of {network["weights"]:,} weights that learned to name what
  rendered clips show. Nothing in the distillation uses it. On clips that it never saw it is right:
  {right}.
* **diversity**: mean root mean square difference of two videos of one prompt from different seeds, in
  features and in pixels of 0 to 1 (standard error of leaving out a seed); 0 if the seed changed
  nothing. {len(DIVERSITY_PROMPTS)} prompts, {DIVERSITY_SEEDS} seeds each.
* **flicker**: mean change of a pixel from frame to frame x 1000, which motion causes too; **at rest**:
  the same where the prompt lets nothing move, so that 0 would be right.

## Time

{times(found)}

## Prompt by prompt

{compared(found["pairs"])}

* **points**: of all four right, the first minus the second, with the standard error of that.
* **wins, losses**: prompts in which only the first, only the second has all four right; which of the
  two shows the shape better. p is that of the exact two-sided sign test: {found["prompts"]} prompts
  cannot show small differences.
* **nearer**: by how much the distance (x 1000) of the first to the teacher in 50 steps is less.

Made by

```bash
{_commands(found)}
```

with {", ".join(f"{name} {version}" for name, version in found["versions"].items())}.
"""


def _commands(found: Figures) -> str:
    rows = found["rows"].items()
    made = [
        row.get("command", f"python samples/tables/distill_rows.py {n}")
        for n, row in rows
        if n in ROWS
    ]
    again = [
        row.get("command", f"python samples/tables/distill_rows.py {n}") + " --diversity"
        for n, row in rows
        if n in ROWS and "diversity" in row
    ]
    timed = [found["time_command"]] if found["time_command"] else []
    return "\n".join([*made, *again, *timed, found["command"]])
