"""Overlaps of patterns: equal runs agree wholly, random ones by chance, each figure by its own axis."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsediff.generation import GenerationRecipe
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.search import Step, TokenGrid

ROOT = Path(__file__).parents[3]
SHAPE = (3, 2, 6, 1, 4, 20, 20)  # prompts, seeds, steps, layers, heads, rows, columns


@pytest.fixture(scope="module")
def overlap() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "samples" / "pattern_overlap.py"))


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("density", [0.15, 0.3])
def test_random_blocks_agree_as_chance_says(overlap: dict[str, Any], density: float) -> None:
    found = overlap["overlaps"](noise(*SHAPE), density)
    for name, values in found.items():
        assert values.shape == SHAPE[2:5]
        assert float(values.mean()) == pytest.approx(density / (2 - density), abs=0.01), name


def test_equal_runs_agree_wholly(overlap: dict[str, Any]) -> None:
    masses = noise(1, 1, *SHAPE[2:]).expand(SHAPE)
    found = overlap["overlaps"](masses, 0.3)
    whole = {name for name, values in found.items() if torch.allclose(values, torch.ones(()))}
    assert whole == {
        "another prompt, same noise",
        "other noise, same prompt",
        "another prompt and other noise",
    }, "steps and heads still differ"
    shares = overlap["kept"](masses, 0.3)
    own, fixed = overlap["OWN"], overlap["FIXED"]
    torch.testing.assert_close(shares[own], shares[fixed])
    assert float(shares[own].mean()) > 0.3 + 0.1, "the heaviest hold more than their number"


AXES = {
    (0,): {"another prompt, same noise"},
    (1,): {"other noise, same prompt"},
    (2,): {"the next or previous step", "other steps of the run"},
    (4,): {"other heads"},
    (0, 1): {
        "another prompt, same noise",
        "other noise, same prompt",
        "another prompt and other noise",
    },
}


@pytest.mark.parametrize("axes", AXES)
def test_each_figure_compares_along_its_own_axis(
    overlap: dict[str, Any], axes: tuple[int, ...]
) -> None:
    """Masses that do not change along some axes agree wholly there, and nowhere else."""
    sizes = [1 if place in axes else size for place, size in enumerate(SHAPE)]
    found = overlap["overlaps"](noise(*sizes).expand(SHAPE), 0.3)
    whole = {name for name, values in found.items() if torch.allclose(values, torch.ones(()))}
    assert whole == AXES[axes]


def test_neighbouring_steps_are_the_adjacent_ones(overlap: dict[str, Any]) -> None:
    pairs = noise(3, 2, 3, 1, 4, 20, 20).repeat_interleave(2, dim=2)  # steps a a b b c c
    blocks = overlap["chosen"](pairs, 0.3)
    near = overlap["across"](blocks, 2, neighbours=True).mean(dim=(1, 2))
    chance = 0.3 / 1.7
    expected = [1.0, *[(1 + chance) / 2] * 4, 1.0]
    torch.testing.assert_close(near, torch.tensor(expected), atol=0.03, rtol=0)


def test_a_fixed_choice_never_holds_more_than_the_best(overlap: dict[str, Any]) -> None:
    shares = overlap["kept"](noise(*SHAPE), 0.3)
    best, fixed, lot = (shares[overlap[name]] for name in ("OWN", "FIXED", "RANDOM"))
    assert bool((best > fixed).all())
    assert float(fixed.mean()) == pytest.approx(0.3, abs=0.02), "unrelated runs know nothing"
    assert float(lot.mean()) == pytest.approx(0.3, abs=0.02)


def test_the_page_of_a_real_run() -> None:
    script = runpy.run_path(str(ROOT / "samples" / "prompt_dependence.py"))
    files = ModelFiles(name=str(ROOT / "samples" / "models" / "shapes-wan"))
    recipe = GenerationRecipe.of(files).with_call(
        num_inference_steps=3, num_frames=5, height=64, width=64
    )
    pipe = load_pipeline(files, dtype="float32", device="cpu")
    first, again, other = (
        script["recorded"](pipe, recipe, "a red circle moving right", seed) for seed in (0, 0, 1)
    )
    steps, layers, heads, rows, columns = first.shape
    assert (steps, layers, heads) == (3, 6, 6)
    assert rows == columns > 4
    torch.testing.assert_close(first.sum(-1).mean(), torch.tensor(64.0), atol=0.5, rtol=0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    masses = torch.stack([torch.stack([first, other]), torch.stack([again, other])])
    text = script["page"](masses, command="python x.py", device="here", used={"torch": "2"})
    line = next(x for x in text.splitlines() if x.startswith("| another prompt, same noise"))
    assert line.count("1.000 (1.000)") == 3, "the two prompts' runs are the same"
    assert "2 prompts, 2 seeds, 3 steps, 6 layers of 6 heads" in text


def test_calls_are_the_prompts_branch() -> None:
    """The second call of a layer in a step, the branch without the prompt, is not measured."""
    script = runpy.run_path(str(ROOT / "samples" / "prompt_dependence.py"))
    method = script["KeepMass"]()
    marks: list[float] = []

    class Call:
        step, layer = Step(index=4), 2
        grid = TokenGrid(frames=1, height=8, width=16)

        def __init__(self, mark: float) -> None:
            self.mark = mark

        def dense(self) -> str:
            return "dense"

        def dense_with_lse(self) -> tuple[str, None]:
            return "with lse", None

        def mass(self, lse: None, block: int) -> Tensor:
            marks.append(self.mark)
            return torch.full((1, 3, 2, 2), self.mark)

    assert [method.attend(Call(mark), None) for mark in (1.0, 2.0)] == ["with lse", "dense"]
    assert marks == [1.0]
    assert torch.equal(method.masses[4, 2], torch.ones(3, 2, 2))
