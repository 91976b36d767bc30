"""The picture of the pruning table: the same prompts and noise, a model and its criterion a row."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_masks import Row  # noqa: E402
from pruning_models import MODELS, SampleModel  # noqa: E402
from pruning_rows_found import Key  # noqa: E402
from pruning_verdict import percent, title_of  # noqa: E402
from strip_sheet import sheet  # noqa: E402

PROMPT = 2  # of the videos: "a green star moving right on a dark background"
COLUMNS = 9


def picture(rows: Mapping[str, list[Key]], folder: Path) -> Image.Image | None:
    """Of the rows of the first seed nine pictures, or nine frames of a video; None where are none."""
    strips: dict[str, Tensor] = {}
    for name, keys in rows.items():
        for criterion, ratio, seed in keys:
            if seed == 0:
                row = Row(model=MODELS[name], criterion=criterion, ratio=ratio, seed=seed)
                samples = load_file(folder / f"{row.name}.safetensors")["samples"]
                cut = f", {percent(ratio)} given up" if ratio else ""
                strips[f"{name}, {title_of(criterion)}{cut}"] = _strip(MODELS[name], samples)
    return sheet(strips) if strips else None


def _strip(sample: SampleModel, samples: Tensor) -> Tensor:
    """Uint8 ``[3, h, columns * w]`` of samples ``[n, frames, 3, h, w]``."""
    if sample.noun == "pictures":
        return torch.cat(list(samples[:COLUMNS, 0]), dim=2)
    return torch.cat(list(samples[min(PROMPT, len(samples) - 1), ::2][:COLUMNS]), dim=2)
