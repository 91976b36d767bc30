"""How alike are patterns from a cached and from a fresh log-sum-exp, on a trained model?

AdaSpa refreshes its pattern with the LSE of its first search, which saves one pass over q k^T. This
script runs a model dense, takes the LSE at 20 % of the steps and compares, at 60 %, the blocks chosen
with it to those chosen with the exact LSE.

    python samples/cached_lse.py [--model DIR] [--steps 20] [--density 0.2]
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
    """Runs dense throughout; at the refresh mark, notes the overlap of the two patterns."""

    found: list[float] = field(default_factory=list)

    def attend(self, call: AttentionCall, memory: Memory) -> torch.Tensor:
        """Dense, with a look at both searches where AdaSpa would make them."""
        schedule = self.schedule
        if schedule.is_last_dense(call.step):
            memory.lse = call.lse()
        elif memory.lse is not None and schedule.marks(call.step) > memory.marks:
            memory.marks = schedule.marks(call.step)
            cached = self.mask(call.mass(memory.lse, self.block_size), call.grid).to_dense()
            fresh = self.mask(call.mass(call.lse(), self.block_size), call.grid).to_dense()
            self.found.append(float((cached & fresh).sum() / fresh.sum()))
        return call.dense()


def overlaps(pipe: Any, recipe: GenerationRecipe, density: float) -> list[float]:
    """Share of the freshly chosen blocks that the cached search chose too, per layer and branch."""
    method = CompareSearches(density=density, head_budgets=False)
    with sparsediff.sparse_attention(pipe, method):
        Runner(pipe, recipe, prompt=recipe.prompt, seed=0, device="cpu").run(decode=False)
    return method.found


def main() -> None:
    """Print the figure."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default=str(SAMPLE))
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--density", type=float, default=0.2)
    options = arguments.parse_args()
    files = ModelFiles(name=options.model)
    recipe = GenerationRecipe.of(files).with_call(num_inference_steps=options.steps)
    pipe = load_pipeline(files, dtype=recipe.dtype or "float32", device="cpu")
    found = overlaps(pipe, recipe, options.density)
    print(
        f"overlap of cached and fresh choice at density {options.density}: mean "
        f"{sum(found) / len(found):.4f}, lowest {min(found):.4f} over {len(found)} searches"
    )


if __name__ == "__main__":
    main()
