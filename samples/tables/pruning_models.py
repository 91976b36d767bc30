"""The sample models of the pruning table: prompts and settings of each."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from row_samples import Request  # noqa: E402

from sparsediff.generation import GenerationRecipe  # noqa: E402
from sparsediff.model_files import ModelFiles  # noqa: E402
from sparsediff.prune.criteria.criterion import Criterion  # noqa: E402
from sparsediff.prune.criteria.registry import criterion_of  # noqa: E402

CRITERIA: Sequence[str] = ("ecodiff", "fisher", "magnitude", "wanda", "owl", "random")
CHAINED = ("ecodiff", "fisher")  # those that look at chains of their own
RATIOS = (0.2, 0.4)
FIRST_SEED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleModel:
    """A folder of samples/models, what it is judged by and what criteria are given of it.

    ``noun``: what it makes, "pictures" or "videos"; ``samples`` of the ``prompts`` for every one of
    ``seeds`` seeds, ``batch`` at a time, in ``steps`` steps; ``clean``: rendered ones on which the
    denoising loss is measured. ``limits``: how many lines of the ``calibration`` file the criteria
    see that run the pipeline; ``learning``: EcoDiff's options, which makes chains of as many steps
    unless it names others; ``chain``: arguments of its chains that make them cheaper.
    ``criteria``: those that the table asks for; it shows others where their rows are there.
    """

    name: str
    noun: str
    prompts: str
    calibration: str
    samples: int
    batch: int
    steps: int
    seeds: int
    clean: int
    limits: Mapping[str, int]
    learning: Mapping[str, Any] = field(default_factory=dict)
    chain: Mapping[str, Any] = field(default_factory=dict)
    criteria: Sequence[str] = CRITERIA

    @property
    def folder(self) -> Path:
        """Where it is."""
        return HERE.parent / "models" / self.name

    def call(self) -> dict[str, Any]:
        """The call that its generation.json recommends, but for the number of steps."""
        recipe = GenerationRecipe.of(ModelFiles(name=str(self.folder)))
        return dict(recipe.with_call(num_inference_steps=self.steps).call)

    def requests(self, seed: int) -> list[Request]:
        """What a row generates; the noise is another for every prompt and seed, and no criterion's."""
        texts = lines_of(self.prompts)[: self.samples]
        return [(text, FIRST_SEED * (1 + seed) + n) for n, text in enumerate(texts)]

    def options(self, criterion: str, seed: int) -> dict[str, Any]:
        """The options that a criterion is given, by their names on the command line."""
        if criterion == "ecodiff":
            return {"steps": self.steps, **self.learning, "seed": seed}
        if criterion == "fisher":
            return {"steps": self.learning.get("steps", self.steps), "seed": seed}
        return {"seed": seed} if criterion == "random" else {}

    def criterion(self, name: str, seed: int) -> Criterion:
        """A criterion of the table with its options."""
        return criterion_of(name, self.options(name, seed))

    def calibration_of(self, criterion: str) -> list[str]:
        """The prompts that a criterion sees; none of them is judged."""
        return lines_of(self.calibration)[: self.limits.get(criterion, 0)]

    def command(self, criterion: str, ratio: float, seed: int) -> list[str]:
        """The words of the command by which a user gets the same masks."""
        words = ["sparsediff", "prune", f"samples/models/{self.name}", "--objective", criterion]
        if criterion in self.limits:
            words += ["--prompts", f"samples/{self.calibration}"]
            words += ["--limit", str(self.limits[criterion])]
            told = {"steps": self.steps, "seed": seed}
        else:
            told = {}
        for name, value in {**told, **self.options(criterion, seed)}.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        if criterion in CHAINED and self.chain:
            size = {**self.call(), **self.chain}
            words += ["--size", f"{size['width']}x{size['height']}x{size['num_frames']}"]
        words += ["--ratio", f"{ratio:g}", "--dtype", "float32", "--device", "cpu"]
        return [*words, "--samples", "0", "--out", f"runs/pruning/{criterion}"]


def lines_of(name: str) -> list[str]:
    """The lines of a file of prompts beside this script."""
    return [line for line in (HERE.parent / name).read_text().splitlines() if line]


def learning_rates(rate: float) -> dict[str, float]:
    """The same rate for both kinds of units."""
    return {"heads_learning_rate": rate, "ffn_learning_rate": rate}


MODELS = {
    "shapes-unet": SampleModel(
        name="shapes-unet",
        noun="pictures",
        prompts="picture_prompts.txt",
        calibration="picture_calibration.txt",
        samples=48,
        batch=24,
        steps=10,
        seeds=3,
        clean=32,
        limits={"ecodiff": 16, "fisher": 16, "wanda": 16, "owl": 16},
        learning={"iterations": 60, "accumulation": 1, **learning_rates(0.2)},
    ),
    "shapes-wan": SampleModel(
        name="shapes-wan",
        noun="videos",
        prompts="prompts.txt",
        calibration="calibration.txt",
        samples=24,
        batch=2,
        steps=8,
        seeds=2,
        clean=4,
        limits={"ecodiff": 8, "fisher": 8, "wanda": 4, "owl": 4},
        # From an even start so few iterations leave the gates where they are.
        learning={
            "steps": 2,
            "iterations": 20,
            "accumulation": 2,
            "warmup_iterations": 3,
            **learning_rates(0.1),
            "start": "fisher",
            "initial_logit": 2.4,
            "start_spread": 12.0,
        },
        chain={"num_frames": 9},
        criteria=("ecodiff", "magnitude", "wanda", "random"),  # the others take 40 minutes more
    ),
}
