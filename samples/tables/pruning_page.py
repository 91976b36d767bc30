"""The page of the pruning table: Markdown of the figures that `pruning_table.py` gathers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_cells import cells, compared, times  # noqa: E402
from pruning_figures import CERTAIN, LEAST_SEEDS  # noqa: E402
from pruning_verdict import joined, percent, time_verdict, verdict  # noqa: E402

Figures = Mapping[str, Any]


def page(found: Figures, *, image: str | None) -> str:
    """The whole page; `image` is the picture's file name beside it."""
    models = found["models"]
    shown = f"\n![Samples of the same prompts and noise]({image})\n" if image else ""
    parts = "\n\n".join(_model(name, model) for name, model in models.items())
    return f"""# What pruning costs: criteria compared

{verdict(found)}

No model was trained after it was cut. Every criterion gives up the same share of the heads and of the
feed-forward neurons and meets the same prompts, the same noise and the same rendered samples. A seed
changes the noise, and the masks of EcoDiff, Fisher, random and (by calibration) of Wanda and OWL.
`same_masks` in a row's JSON file is the command by which a user gets its masks.
{shown}
{parts}

* **accuracy**: samples of which the judge `samples/train/classify.py` finds all right that the prompt
  names; **answers**: of all that the prompts name, the share that is right. **loss**: mean squared
  error of the model's output on rendered samples, {_noise(models)};
  **distance**: mean square between its output and the whole model's there. All are means over seeds
  ± the standard deviation over them.
* **masks took**: the longest of the seeds, alone on its thread; one training of EcoDiff serves all
  shares that are given up and counts at the first.
* **wins, losses**: samples of the same prompt and noise in which only EcoDiff's, only the other's is
  right, or more of its answers are; p is that of the exact two-sided sign test. EcoDiff *beats*
  another by accuracy where p < {CERTAIN:g}, by loss where it is lower in every seed, of at least
  {LEAST_SEEDS}; it *loses* the same way, and all else is *open*.
* The options of EcoDiff and Fisher were chosen while looking at samples and loss of the first seed;
  the other criteria have none that were tried.

## Time against parameters

{time_verdict(found)}

{times(models)}

## Made by

```bash
{_commands(found)}
```

with {", ".join(f"{name} {version}" for name, version in found["versions"].items())}.
The rows took {_minutes(models)} of a processor.
"""


def _model(name: str, model: Figures) -> str:
    told = (
        f"{model['samples']} {model['noun']} a row, in {model['call']['num_inference_steps']} steps, "
        f"{model['seeds']} seeds; {model['clean']} rendered {model['noun']} for the loss."
    )
    if model["whole"]:
        right = percent(model["whole"]["accuracy"]["mean"], 1)
        told += f"\nThe whole model itself is right in {right} of them."
    lines = [f"## {name}", told, cells(model), compared(model)]
    if model["missing"]:
        lines.append(
            f"**Missing**: {len(model['missing'])} of {model['expected']} rows are not there or not "
            f"complete: {', '.join(f'`{row}`' for row in model['missing'])}."
        )
    return "\n\n".join(lines)


def _noise(models: Figures) -> str:
    found = next((model["noise"] for model in models.values() if model["noise"]), None)
    if found is None:
        return "at several noise levels"
    return f"at {joined([f'{time:g}' for time in found])} of the way to noise"


def _minutes(models: Figures) -> str:
    """What the rows took in all, by model."""
    spent = [(name, model["cpu_seconds"] / 60) for name, model in models.items()]
    return joined([f"{minutes:.1f} minutes ({name})" for name, minutes in spent])


def _commands(found: Figures) -> str:
    timed = dict.fromkeys(
        model["time_command"] for model in found["models"].values() if model["time_command"]
    )
    missing = "python samples/tables/pruning_table.py --missing"
    rows = f"{missing} | xargs -P 2 -L 1 env OMP_WAIT_POLICY=PASSIVE"
    own = "OMP_WAIT_POLICY=PASSIVE python samples/tables/pruning_time.py"
    return "\n".join([rows, *(timed or [own]), found["command"]])
