"""What the sample model's student is trained on and what it is judged by have nothing in common."""

from itertools import product
from pathlib import Path

from captions import caption
from shapes import BACKGROUND_NAMES, COLOR_NAMES, MOTION_NAMES, SHAPES

SAMPLES = Path(__file__).parents[3] / "samples"


def _lines(name):
    return [line for line in (SAMPLES / name).read_text().splitlines() if line]


def test_training_prompts_are_all_captions_but_those_judged_by():
    counts = (len(SHAPES), len(COLOR_NAMES), len(MOTION_NAMES), len(BACKGROUND_NAMES))
    every = {caption(*numbers) for numbers in product(*map(range, counts))}
    judged, trained = _lines("prompts.txt"), _lines("distill_prompts.txt")
    assert len(trained) == len(set(trained))
    assert set(trained) == every - set(judged)
    assert len(set(judged) & every) == len(judged)
