"""docs/kernels.md names the tiles that tiles.py chooses, and none of them spills."""

from __future__ import annotations

from pathlib import Path

import torch

from sparsediff.kernels.triton.tiles import GENERATIONS, tile_for

PAGE = Path(__file__).parents[3] / "docs" / "kernels.md"


def rows() -> list[dict[str, str]]:
    """The lines of the table, by the names of its columns."""
    text = PAGE.read_text().split("<!-- tiles: begin -->")[1].split("<!-- tiles: end -->")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def test_the_table_is_that_of_the_tiles() -> None:
    compared = 0
    for row in rows():
        if row["kernel"] in {"delta", "hopper"}:  # neither chooses among tiles
            continue
        block, columns = (int(size) for size in row["blocks"].split("x"))
        height = 1 << 10 if row["kernel"] == "mass" else block  # small blocks share its program
        tile = tile_for(
            row["kernel"],
            arch=int(row["sm"]),
            dim=int(row["dim"]),
            dtype=getattr(torch, row["dtype"]),
            block_size=(height, columns),
        )
        found = (row["tile"], row["warps"], row["stages"])
        named = (f"{tile.rows}x{tile.columns}", str(tile.warps), str(tile.stages))
        assert found == named, f"{row}: write the table anew, see docs/kernels.md"
        compared += 1
    assert compared > 100


def test_every_generation_is_in_the_table_and_nothing_spills() -> None:
    assert {int(row["sm"]) for row in rows()} == set(GENERATIONS)
    assert {row["spills"] for row in rows()} == {"0"}
