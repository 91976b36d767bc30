"""Do attention patterns depend on the prompt? AdaSpa says so, Sparse-vDiT says they do not.

This script runs a model dense on several prompts and seeds, takes the exact attention mass of every
block pair in every step, layer and head, and compares the heaviest blocks of every row.

    python samples/prompt_dependence.py [--prompts 6] [--seeds 2] [--output FILE]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sparsediff
from sparsediff.environment import device_name, versions
from sparsediff.generation import GenerationRecipe
from sparsediff.loading import load_pipeline, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.search import AttentionCall, Memory, Method
from sparsediff.timed_run import Runner

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from prompt_page import page  # noqa: E402


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepMass(Method):
    """Runs dense; keeps the block mass of each layer's first call in a step: the prompt's branch."""

    masses: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense; one pass more over the keys measures the mass."""
        place = (call.step.index, call.layer)
        if place in self.masses:
            return call.dense()
        out, lse = call.dense_with_lse()
        lead, trail = call.grid.text_edges(self.block_size)
        mass = call.mass(lse, self.block_size)[0]
        video = slice(lead, mass.shape[-1] - trail)
        self.masses[place] = mass[:, video, video]
        return out


def recorded(pipe: Any, recipe: GenerationRecipe, prompt: str, seed: int) -> Tensor:
    """Block masses of one dense run: float32 ``[steps, layers, heads, m, n]``."""
    method = KeepMass()
    with sparsediff.sparse_attention(pipe, method, gate=False) as session:
        Runner(pipe, recipe, prompt=prompt, seed=seed, device="cpu").run(decode=False)
        report = session.report()
    if report.sparse_calls or report.fallbacks or not method.masses:
        raise sparsediff.SparseError(f"The run was not dense throughout: {report}")
    steps, layers = (1 + max(place[i] for place in method.masses) for i in (0, 1))
    return torch.stack(
        [torch.stack([method.masses[t, layer] for layer in range(layers)]) for t in range(steps)]
    )


def recordings(
    files: ModelFiles, prompts: list[str], seeds: int, steps: int, tell: Callable[[str], None]
) -> Tensor:
    """Block masses of all runs: float32 ``[prompts, seeds, steps, layers, heads, m, n]``."""
    recipe = GenerationRecipe.of(files).with_call(num_inference_steps=steps)
    pipe = load_pipeline(files, dtype=resolve_dtype(None, recipe, "cpu"), device="cpu")
    found = []
    for number, prompt in enumerate(prompts):
        tell(f"prompt {number + 1} of {len(prompts)}: {prompt}")
        found.append(torch.stack([recorded(pipe, recipe, prompt, seed) for seed in range(seeds)]))
    return torch.stack(found)


def main() -> None:
    """Write the page, or print it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default=str(HERE / "models" / "shapes-wan"))
    arguments.add_argument("--prompts", type=int, default=6, help="first lines of prompts.txt")
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=10)
    arguments.add_argument("--output", help="a Markdown file")
    options = arguments.parse_args()
    if min(options.prompts, options.seeds, options.steps) < 2:
        arguments.error("give at least two prompts, seeds and steps; one has nothing to compare to")
    lines = (HERE / "prompts.txt").read_text(encoding="utf-8").splitlines()[: options.prompts]
    masses = recordings(
        ModelFiles(name=options.model),
        lines,
        options.seeds,
        options.steps,
        lambda text: print(text, file=sys.stderr),
    )
    command = shlex.join(["python", "samples/prompt_dependence.py", *sys.argv[1:]])
    text = page(masses, command=command, device=device_name("cpu"), used=versions())
    if options.output:
        Path(options.output).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
