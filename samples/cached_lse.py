"""How alike are patterns from a cheaper search and from an exact one, on a trained model?

AdaSpa refreshes its pattern with the LSE of its first search, which saves one pass over q k^T. This
script runs a model dense, takes the LSE at 20 % of the steps and compares, at 60 %, the blocks chosen
with it to those chosen with the exact LSE; and those chosen from every n-th query only.

    python samples/cached_lse.py [--model DIR] [--steps 20] [--density 0.2] [--query-stride 4]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import sparsediff
from sparsediff.generation import GenerationRecipe
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.search import AdaSpa, AttentionCall, Memory
from sparsediff.timed_run import Runner

SAMPLE = Path(__file__).parent / "models" / "shapes-wan"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSearches(AdaSpa):
    """Runs dense throughout; at the refresh mark, notes the overlap with the exact pattern."""

    cached: list[float] = field(default_factory=list)
    sampled: list[float] = field(default_factory=list)

    def attend(self, call: AttentionCall, memory: Memory) -> torch.Tensor:
        """Dense, with a look at both searches where AdaSpa would make them."""
        schedule = self.schedule
        if schedule.is_last_dense(call.step):
            memory.lse = call.lse()
        elif memory.lse is not None and schedule.marks(call.step) > memory.marks:
            memory.marks = schedule.marks(call.step)
            fresh = call.lse()
            exact = self._chosen(call, fresh, 1)
            self.cached.append(_overlap(self._chosen(call, memory.lse, 1), exact))
            self.sampled.append(_overlap(self._chosen(call, fresh, self.query_stride), exact))
        return call.dense()

    def _chosen(self, call: AttentionCall, lse: torch.Tensor, stride: int) -> torch.Tensor:
        mass = call.mass(lse, self.block_size, query_stride=stride)
        return self.mask(mass, call.grid).to_dense()


def _overlap(chosen: torch.Tensor, exact: torch.Tensor) -> float:
    return float((chosen & exact).sum() / exact.sum())


def overlaps(
    pipe: Any, recipe: GenerationRecipe, density: float, query_stride: int = 4
) -> tuple[list[float], list[float]]:
    """Share of the exact search's blocks that cached and sampled search choose too, per search."""
    method = CompareSearches(density=density, head_budgets=False, query_stride=query_stride)
    with sparsediff.sparse_attention(pipe, method, gate=False):
        Runner(pipe, recipe, prompt=recipe.prompt, seed=0, device="cpu").run(decode=False)
    return method.cached, method.sampled


def main() -> None:
    """Print the figure."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default=str(SAMPLE))
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--density", type=float, default=0.2)
    arguments.add_argument("--query-stride", type=int, default=4)
    options = arguments.parse_args()
    files = ModelFiles(name=options.model)
    recipe = GenerationRecipe.of(files).with_call(num_inference_steps=options.steps)
    pipe = load_pipeline(files, dtype=recipe.dtype or "float32", device="cpu")
    cached, sampled = overlaps(pipe, recipe, options.density, options.query_stride)
    for name, found in (("cached LSE", cached), (f"1 query in {options.query_stride}", sampled)):
        print(
            f"{name}: overlap with the exact choice at density {options.density}: mean "
            f"{sum(found) / len(found):.4f}, lowest {min(found):.4f} over {len(found)} searches"
        )


if __name__ == "__main__":
    main()
