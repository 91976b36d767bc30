"""The comparison of token orders: its figures are of the orders that it names, on a real run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_calls import Recorder, call

from sparsediff.generation import GenerationRecipe
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.search import Memory, Step, TokenGrid
from sparsediff.search.token_order import TOKEN_ORDERS
from sparsediff.timed_run import Runner

ROOT = Path(__file__).parents[3]
DENSITIES = (0.1, 0.2, 0.3)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "samples" / "token_orders.py"))


def test_attention_to_neighbours_is_held_by_compact_blocks(script: dict[str, Any]) -> None:
    """Queries that look at what is near them in space and time, on a grid of wide rows."""
    grid = TokenGrid(frames=8, height=8, width=32)
    places = grid.positions().float()
    # exp(q.k) falls with the squared distance: |a|^2 and |b|^2 enter by one more dimension each.
    square = places.square().sum(1, keepdim=True)
    ones = torch.ones_like(square)
    q, k = torch.cat([2 * places, ones], 1), torch.cat([places, -square], 1)
    tensors = [x[None, :, None].double() for x in (q, k, torch.rand_like(q))]
    recorder, method = Recorder(), script["KeepRecall"]()
    out = method.attend(call(grid, Step(index=2), recorder, tensors, layer=1), Memory())
    assert recorder.ran == ["dense"]
    assert out.shape == tensors[2].shape
    held = method.held[2, 1]
    assert held.shape == (3, 3, 1)
    raster, tile, gilbert = held[:, :, 0]
    assert bool((held.diff(dim=1) >= 0).all()), "more blocks hold more"
    assert bool((tile > raster + 0.1)[:1].all())
    assert bool((gilbert > raster + 0.1)[:1].all())
    assert float(tile[-1]) > 0.9


@pytest.mark.slow
def test_the_page_of_a_real_run(script: dict[str, Any]) -> None:
    files = ModelFiles(name=str(ROOT / "samples" / "models" / "shapes-wan"))
    recipe = GenerationRecipe.of(files).with_call(
        num_inference_steps=3, num_frames=5, height=64, width=64
    )
    pipe = load_pipeline(files, dtype="float32", device="cpu")

    def runner_for(prompt: str, seed: int) -> Runner:
        return Runner(pipe, recipe, prompt=prompt, seed=seed, device="cpu")

    held, grid = script["recall"](runner_for("a red circle moving right", 0))
    steps, layers, orders, densities, heads = held.shape
    assert (steps, layers, orders, densities, heads) == (3, 6, 3, 3, 6)
    assert bool((held > 0).all())
    assert bool((held <= 1).all())
    videos = script["videos"](runner_for, ["a red circle moving right"], lambda text: None)
    assert [row.name for row in videos] == list(TOKEN_ORDERS) * 2
    assert len({row.psnr for row in videos}) == 6
    found = script["Findings"](
        held=held[None].movedim((3, 4), (0, 1)),
        orders=TOKEN_ORDERS,
        densities=DENSITIES,
        grid=grid,
        block=64,
        videos=videos,
    )
    assert found.of("tile", 0.2).shape == (1, 3, 6, 6)
    assert found.mean("tile", 0.2) == pytest.approx(float(held[:, :, 1, 1].mean()))
    cost = script["move_cost"](2, 16, 16)
    assert 0 < cost.moves < cost.whole
    text = script["page"](found, [cost], command="python x.py", machine={"device": "here"})
    assert f"| tile | {found.mean('tile', 0.1):.3f} (" in text
    assert "of 6 heads" in text
    document = json.loads(json.dumps({**found.to_dict(), "moving": [cost.to_dict()]}))
    assert len(document["rows"]) == 9
    assert document["rows"][4]["order"] == "tile"
    assert document["rows"][4]["density"] == 0.2
