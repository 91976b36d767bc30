"""The static gate sees faults: kernels and tiles that compile but would be slow or not start at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from configurations import Configuration
from planting import plant
from requirements import misses

from sparsediff.kernels.triton.tiles import Tile

LOADS = """        k = load_rows(k_tile + token.to(tl.int64) * k_token, keys, 0, D, DIM, False)
        v = load_rows(v_tile + token.to(tl.int64) * v_token, keys, 0, D, DIM, False)
        m, total, acc = accumulate(q, k, v, m, total, acc, scale_log2, 0, False)
"""


def forward(tile: Tile | None = None, arch: int = 90) -> Configuration:
    return Configuration(
        kernel="forward", arch=arch, dim=128, dtype=torch.bfloat16, block_size=(128, 64),
        general=False, tile=tile,
    )  # fmt: skip


def test_a_branch_around_the_block_loses_the_copies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    indented = "".join(f"    {line}\n" for line in LOADS.splitlines())
    branch = "        if tl.load(INDICES + start + i) >= 0:\n" + indented
    plant(monkeypatch, tmp_path, "forward.py", LOADS, branch)
    assert any("0 bytes copied ahead" in miss for miss in misses(forward()))


def test_a_block_number_loaded_in_the_loop_loses_a_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(
        monkeypatch, tmp_path, "forward.py",
        "        token = block * BLOCK + (i % SPLIT) * COLUMNS\n        step",
        "        block = list_block(INDICES, start, i // SPLIT, count, listed)\n"
        "        token = block * BLOCK + (i % SPLIT) * COLUMNS\n        step",
    )  # fmt: skip
    assert any("waits for all but" in miss for miss in misses(forward()))


def test_products_without_tensor_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(
        monkeypatch, tmp_path, "forward.py",
        'scores = tl.dot(q, k.T, input_precision="ieee")',
        'scores = tl.dot(q.to(tl.float32), k.to(tl.float32).T, input_precision="ieee")',
    )  # fmt: skip
    tile = Tile(rows=32, columns=32, warps=4, stages=2)  # 32 rows: the second product is no HGMMA
    assert any(miss.startswith("products") for miss in misses(forward(tile)))


def test_a_tile_too_large_for_the_registers() -> None:
    found = misses(forward(Tile(rows=128, columns=64, warps=4, stages=3)))
    assert any(miss.endswith("spills") for miss in found)


def test_a_tile_too_large_for_the_shared_memory() -> None:
    found = misses(forward(Tile(rows=64, columns=64, warps=8, stages=5), arch=89))
    assert any("bytes of shared memory" in miss for miss in found)
