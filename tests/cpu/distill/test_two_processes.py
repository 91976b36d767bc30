"""Two processes, each with half of a batch, train what one process with the whole batch trains."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import LAYERS
from training_processes import (
    full_disk_in_the_first,
    gone_on,
    in_processes,
    killed_after_a_checkpoint,
    nan_in_the_second,
    trained,
    trained_by_several,
)

pytestmark = pytest.mark.slow

# Halves of a batch are summed in another order. A sum has at most 96 terms (2 samples of 48 tokens), so
# float32 rounds it by at most 96 half-ulps; a gradient goes through roll-out (2 steps), 2 scores and
# one backward pass, of LAYERS layers each with some 8 such sums.
LIMIT = 96 * 2.0**-24 * 5 * LAYERS * 8


def together(work: Callable[..., Any], folder: Path, *given: Any, **words: Any) -> list[Any]:
    """What `work` writes in each of two processes."""
    folder.mkdir(exist_ok=True)
    assert in_processes(work, folder, *given, count=2, **words) == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize(
    ("rank", "accumulation", "checkpointing", "shard"),
    [
        (2, 2, True, False),
        (0, 2, False, False),
        (2, 2, True, True),
        (0, 1, False, True),
    ],
)
def test_gradients_and_weights_are_those_of_one(
    tmp_path: Path, rank: int, accumulation: int, checkpointing: bool, shard: bool
) -> None:
    changes = {
        "lora_rank": rank,
        "accumulation": accumulation,
        "gradient_checkpointing": checkpointing,
    }
    alone = trained(tmp_path / "one", batch=2, **changes)
    both = together(trained_by_several, tmp_path, tmp_path / "two", batch=1, shard=shard, **changes)
    assert alone["processes"] == 1
    assert [one["processes"] for one in both] == [2, 2]
    # Dimensions of 1 are held by one process alone, so halves are not exact.
    assert all(0.3 < one["held"] < 0.7 if shard else one["held"] == 1 for one in both)
    for one in both:
        assert one["sparse"]["teacher"] == 0
        assert one["sparse"]["student"] > 0
        assert one["sparse"]["fake"] > 0
        assert one["gradients"].keys() == alone["gradients"].keys()
        for role in ("student", "fake"):
            values = {n: g for n, g in alone["gradients"].items() if n.startswith(role)}
            largest = max(float(g.abs().max()) for g in values.values())
            apart = max(float((one["gradients"][n] - g).abs().max()) for n, g in values.items())
            assert largest > 0
            assert apart <= LIMIT * largest
    first, second = (one["weights"] for one in both)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    # AdamW divides each gradient by its size, so weights whose gradient is all rounding may go
    # anywhere: few have such.
    moved = torch.cat([(v - alone["started"][n]).flatten() for n, v in alone["weights"].items()])
    apart = torch.cat([(first[n] - v).flatten() for n, v in alone["weights"].items()])
    assert float(apart.norm()) <= 0.02 * float(moved.norm())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nan_in_one_stops_both(tmp_path: Path, where: str) -> None:
    for said, weights in together(nan_in_the_second, tmp_path, tmp_path / "out", where):
        assert "of the student" in said
        assert "nan at iteration 1" in said
        assert "iteration-000001: go on from it" in said
        assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("shard", [False, True])
def test_killed_they_go_on_the_same(tmp_path: Path, shard: bool) -> None:
    changes = {"iterations": 3, "checkpoint_every": 2, "shard": shard}
    expected = together(gone_on, tmp_path, tmp_path / "whole", **changes)
    codes = in_processes(killed_after_a_checkpoint, tmp_path / "out", count=2, **changes)
    assert codes == [-signal.SIGKILL] * 2
    found = together(gone_on, tmp_path, tmp_path / "out", **changes)
    assert [done for done, _ in expected] == [0, 0]
    assert [done for done, _ in found] == [2, 2]
    for (_, weights), (_, wanted) in zip(found, expected, strict=True):
        assert all(torch.equal(weights[name], value) for name, value in wanted.items())
    # The student as files has the averaged weights, all of each.
    student = load_file(tmp_path / "out" / "pytorch_lora_weights.safetensors")
    names = [name.removeprefix("student.") for name in found[0][1] if name.startswith("student.")]
    assert len(student) == len(names) > 0
    for number, name in enumerate(names):
        value = student["transformer." + name.replace(".student", "")]
        assert torch.equal(value, found[0][1][f"average.{number}"])


@pytest.mark.parametrize("place", ["checkpoint", "log"])
def test_a_full_disk_of_one_stops_both(tmp_path: Path, place: str) -> None:
    """Neither waits for the other: `in_processes` would end one that does, with another code."""
    codes = in_processes(full_disk_in_the_first, tmp_path, tmp_path / "out", place, count=2)
    assert codes == [0, 0]
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert "No space left" in first
    assert "Process 0 of 2 failed: " in second
    assert "No space left" in second
