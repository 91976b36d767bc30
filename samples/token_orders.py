"""Does another order of the tokens give better blocks? Raster, 3-D tiles and a Hilbert curve compared.

This script runs a model dense and takes, in every step, layer and head, the exact attention mass of
every block pair with the tokens in each order; then it notes how much of the mass the best blocks
hold. It also generates sparse videos in each order, and times what moving the tokens costs.

    python samples/token_orders.py [--prompts 3] [--steps 10] [--output FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sparsediff
from sparsediff.environment import device_name, versions
from sparsediff.fidelity import WARMUP, FidelityRow, measure_fidelity
from sparsediff.generation import GenerationRecipe
from sparsediff.loading import load_pipeline, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.search import AdaSpa, AttentionCall, Memory, Method
from sparsediff.search.arrangement import arrangements
from sparsediff.search.selection import RankedBlocks, keys_per_row
from sparsediff.search.token_order import TOKEN_ORDERS, grid_order
from sparsediff.timed_run import Runner

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from token_order_cost import MoveCost, move_cost  # noqa: E402
from token_order_page import Findings, page  # noqa: E402

DENSITIES = (0.1, 0.2, 0.3)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepRecall(Method):
    """Runs dense; keeps the share of the mass that the best blocks hold, in every order.

    ``held`` by step and layer: float32 ``[orders, densities, h]``, of the first call in a step: the
    prompt's branch.
    """

    held: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    grids: set[Any] = field(default_factory=set)

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense; one pass more over the keys for every order."""
        place = (call.step.index, call.layer)
        if place in self.held:
            return call.dense()
        self.grids.add(call.grid)
        out, lse = call.dense_with_lse()
        self.held[place] = torch.stack([self._in_order(call, lse, name) for name in TOKEN_ORDERS])
        return out

    def _in_order(self, call: AttentionCall, lse: Tensor, name: str) -> Tensor:
        order = grid_order(name, self.block_size)
        arrangement = arrangements(call.grid, order, call.q.device)[0]
        if arrangement is not None:
            call = replace(call, grid=arrangement.grid, arrangement=arrangement)
            lse = arrangement.tokens.moved(lse, dim=2)
        mass, columns = call.mass(lse, self.block_size), call.grid.video_blocks(self.block_size)
        keep = [keys_per_row(density, columns) for density in DENSITIES]
        ranked = RankedBlocks.of(mass, max(keep), call.grid, self.block_size)
        return torch.stack([ranked.recall(mass, number)[0] for number in keep])


def recall(runner: Runner) -> tuple[Tensor, Any]:
    """Mass held in one dense run, ``[steps, layers, orders, densities, heads]``, and the grid."""
    method = KeepRecall()
    with sparsediff.sparse_attention(runner.pipe, method, gate=False) as session:
        runner.run(decode=False)
        report = session.report()
    if report.sparse_calls or report.fallbacks or not method.held:
        raise sparsediff.SparseError(f"The run was not dense throughout: {report}")
    steps, layers = (1 + max(place[i] for place in method.held) for i in (0, 1))
    rows = [[method.held[t, layer] for layer in range(layers)] for t in range(steps)]
    (grid,) = method.grids
    return torch.stack([torch.stack(row) for row in rows]), grid


def videos(
    runner_for: Callable[[str, int], Runner], prompts: list[str], tell: Callable[[str], None]
) -> list[FidelityRow]:
    """Closeness of sparse videos to dense ones, AdaSpa with equal heads in every order."""
    method = AdaSpa(warmup=WARMUP, head_budgets=False)
    selections: dict[str, Method] = {
        name: method.with_options(token_order=name) for name in TOKEN_ORDERS
    }
    return measure_fidelity(
        runner_for, prompts, DENSITIES[1:], selections=selections, progress=tell
    )


def findings(
    files: ModelFiles, prompts: list[str], steps: int, tell: Callable[[str], None]
) -> Findings:
    """Everything that the page says of the model."""
    recipe = GenerationRecipe.of(files).with_call(num_inference_steps=steps)
    pipe = load_pipeline(files, dtype=resolve_dtype(None, recipe, "cpu"), device="cpu")

    def runner_for(prompt: str, seed: int) -> Runner:
        return Runner(pipe, recipe, prompt=prompt, seed=seed, device="cpu")

    held, grid = [], None
    for seed, prompt in enumerate(prompts):
        tell(f"masses of prompt {seed + 1} of {len(prompts)}: {prompt}")
        found, grid = recall(runner_for(prompt, seed))
        held.append(found)
    return Findings(
        held=torch.stack(held).movedim((3, 4), (0, 1)),
        orders=TOKEN_ORDERS,
        densities=DENSITIES,
        grid=grid,
        block=KeepRecall().block_size,
        videos=videos(runner_for, prompts, tell),
    )


def costs(tell: Callable[[str], None]) -> list[MoveCost]:
    """What moving the tokens costs at 4 thousand and 16 thousand of them."""
    found = []
    for frames, height, width in ((4, 32, 32), (16, 32, 32)):
        tell(f"moving {frames * height * width} tokens")
        found.append(move_cost(frames, height, width))
    return found


def main() -> None:
    """Write the page and the figures, or print the page."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default=str(HERE / "models" / "shapes-wan"))
    arguments.add_argument("--prompts", type=int, default=3, help="first lines of prompts.txt")
    arguments.add_argument("--steps", type=int, default=10)
    arguments.add_argument("--output", help="a Markdown file")
    arguments.add_argument("--json", help="a file for the figures")
    options = arguments.parse_args()
    if options.prompts < 1 or options.steps < 3:
        arguments.error("needs at least one prompt and three steps")
    lines = (HERE / "prompts.txt").read_text(encoding="utf-8").splitlines()[: options.prompts]

    def tell(text: str) -> None:
        print(text, file=sys.stderr)

    found, moved = findings(ModelFiles(name=options.model), lines, options.steps, tell), costs(tell)
    command = shlex.join(["python", "samples/token_orders.py", *sys.argv[1:]])
    machine = {
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        **versions(),
    }
    text = page(found, moved, command=command, machine=machine)
    if options.json:
        document = {
            "schema": "sparsediff.token-orders/1",
            "command": command,
            "machine": machine,
            **found.to_dict(),
            "moving": [cost.to_dict() for cost in moved],
        }
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.output:
        Path(options.output).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
