"""The page that `token_orders.py` writes: tables, and an answer in the figures' own words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from token_order_cost import BLOCK, DENSITY, DIM, HEADS, MoveCost
from torch import Tensor

from sparsediff.fidelity import FidelityRow
from sparsediff.search import TokenGrid
from sparsediff.search.token_order import tile_shape

LOWEST = 0.1  # share of the heads that the figures in brackets are the mean of
CLEAR = 0.02  # of the mass: less is no reason to move tokens
NOTABLE = 0.5  # dB of PSNR, which a handful of prompts can tell
PARTS = ("early", "middle", "late")


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """``held``: share of the mass, ``[orders, densities, prompts, steps, layers, heads]``; ``videos``:
    closeness of sparse videos, a row per order and density; ``grid`` in raster order.
    """

    held: Tensor
    orders: Sequence[str]
    densities: Sequence[float]
    grid: TokenGrid
    block: int
    videos: Sequence[FidelityRow]

    def mean(self, order: str, density: float) -> float:
        """Mean share of the mass that the best blocks hold in an order."""
        return float(self.of(order, density).mean())

    def of(self, order: str, density: float) -> Tensor:
        """``[prompts, steps, layers, heads]`` of an order at a density."""
        return self.held[self.orders.index(order), self.densities.index(density)]

    def to_dict(self) -> dict[str, Any]:
        """Means of all that was found, and each layer's and head's, for a file."""
        rows = [
            {
                "order": order,
                "density": density,
                "held": round(self.mean(order, density), 6),
                "held_by_head": [
                    [round(value, 6) for value in layer]
                    for layer in self.of(order, density).mean(dim=(0, 1)).tolist()
                ],
            }
            for density in self.densities
            for order in self.orders
        ]
        return {
            "grid": self.grid.sizes,
            "block_size": self.block,
            "tile": tile_shape((self.grid.frames, self.grid.height, self.grid.width), self.block),
            "rows": rows,
            "videos": [row.to_dict() for row in self.videos],
        }


def page(
    found: Findings, moved: Sequence[MoveCost], *, command: str, machine: Mapping[str, Any]
) -> str:
    """Markdown of the findings and costs, made by `command`."""
    grid = found.grid
    _, _, prompts, steps, layers, heads = found.held.shape
    tile = "x".join(map(str, tile_shape((grid.frames, grid.height, grid.width), found.block)))
    strip = _strip(grid, found.block)
    used = machine.items()
    tables = "\n\n".join(_held(found, density) for density in found.densities)
    on = ", ".join(str(value) if name == "device" else f"{name} {value}" for name, value in used)
    return f"""# Does another order of the tokens give better blocks?

A block of {found.block} tokens is, in the model's own raster order, a strip of rows of one frame. In
tiles it is a box of neighbours in space and time, along a Hilbert curve a compact heap of them
(`token_order="tile"` or `"gilbert"`). {_verdict(found)} {_closer(found)}

{_moving(moved)}

Compared is the share of the exact attention mass that the best key blocks of every row hold, as
AdaSpa chooses them with equal heads, in dense runs: prompts {prompts}, steps {steps}, {layers} layers
of {heads} heads, the guidance branch that sees the prompt. The grid is
{grid.frames}x{grid.height}x{grid.width} tokens, a tile {tile}, a raster block {strip}.
Means over prompts, steps, layers and heads; in brackets that of the tenth of the heads that is lowest.

{tables}

* **each head's best**: as if every head had the order that holds most of its own mass, over the run.

## Videos

PSNR to the dense video (SSIM), mean over the prompts: AdaSpa with equal heads, the first 20 % of the
steps dense. A handful of prompts settles no tenths of a dB.

{_videos(found)}

## What moving costs

One sparse call over a random mask of density {DENSITY:g} in blocks of {BLOCK}, {HEADS} heads of dim
{DIM}, float32: q, k and v are moved and the output is moved back, each by one `index_select`. Medians
of shares within rounds in which all were timed in turns.

| tokens | sparse call | moves, of it | sparse call with moves, of it | dense attention, of it |
|---|---|---|---|---|
{_costs(moved)}

Made by

```bash
{command}
```

on {on}.
"""


def _verdict(found: Findings) -> str:
    first, *others = found.orders
    density = found.densities[1]
    base = found.mean(first, density)
    gains = {order: found.mean(order, density) - base for order in others}
    clear = [order for order, gain in gains.items() if gain >= CLEAR]
    points = ", ".join(f"{order} {100 * gain:+.1f}" for order, gain in gains.items())
    said = (
        f"at density {density:g} the best blocks\nhold {100 * base:.1f} % of the attention mass in "
        f"{first} order; in points more: {points}."
    )
    if clear:
        return f"On this model\n**{' and '.join(clear)}** clearly beat raster order: {said}"
    if max(gains.values()) <= -CLEAR:
        return f"On this model\n**{first}** order clearly holds more: {said}"
    return f"On this model\nneither makes a clear difference: {said}"


def _closer(found: Findings) -> str:
    """Whether the videos say the same as the masses."""
    first, *others = found.orders
    psnr = {
        order: sum(row.mean_psnr for row in found.videos if row.name == order)
        for order in found.orders
    }
    each = len({row.density for row in found.videos})
    gains = {order: (psnr[order] - psnr[first]) / each for order in others}
    points = ", ".join(f"{order} {gain:+.1f} dB" for order, gain in gains.items())
    if max(gains.values()) >= NOTABLE:
        return f"The\nvideos come closer to the dense ones, too: {points} against {first} order."
    return (
        f"The\nvideos do not come closer to the dense ones by it: over few prompts, {points}\nagainst "
        f"{first} order, which stays the default."
    )


def _strip(grid: TokenGrid, block: int) -> str:
    """What a block is in raster order."""
    if block % grid.width == 0:
        return f"{block // grid.width} whole rows of {grid.width} tokens"
    return f"a run of {block} tokens in rows of {grid.width}"


def _moving(moved: Sequence[MoveCost]) -> str:
    parts = " and ".join(f"{100 * cost.moves:.1f} % at {cost.tokens} tokens" for cost in moved)
    return f"Moving the tokens there and back costs, of a sparse call's time, {parts}."


def _held(found: Findings, density: float) -> str:
    head = " | ".join(f"{part} steps" for part in PARTS)
    lines = [f"## Density {density:g}", "", f"| order | whole run | {head} |", "|---" * 5 + "|"]
    by_order = {order: found.of(order, density) for order in found.orders}
    for order, held in by_order.items():
        lines.append(_line(order, held))
    means = found.held[:, found.densities.index(density)].mean(dim=(1, 2))
    best = means.argmax(dim=0)  # [layers, heads]
    chosen = found.held[:, found.densities.index(density)].gather(
        0, best.expand(1, *found.held.shape[2:4], *best.shape)
    )[0]
    counts = ", ".join(
        f"{order} {int((best == number).sum())}" for number, order in enumerate(found.orders)
    )
    lines.append(_line(f"each head's best ({counts})", chosen))
    return "\n".join(lines)


def _line(name: str, held: Tensor) -> str:
    cells = [_cell(part) for part in (held, *held.tensor_split(len(PARTS), dim=1))]
    return f"| {name} | {' | '.join(cells)} |"


def _cell(held: Tensor) -> str:
    """Mean of all, and of the heads whose mean over prompts and steps is lowest."""
    of_heads = held.mean(dim=(0, 1)).flatten().sort().values
    lowest = of_heads[: math.ceil(LOWEST * len(of_heads))]
    return f"{of_heads.mean():.3f} ({lowest.mean():.3f})"


def _videos(found: Findings) -> str:
    densities = sorted({row.density for row in found.videos})
    lines = ["| order | " + " | ".join(f"density {density:g}" for density in densities) + " |"]
    lines.append("|---" * (1 + len(densities)) + "|")
    for order in found.orders:
        rows = {row.density: row for row in found.videos if row.name == order}
        cells = [
            f"{rows[density].mean_psnr:.1f} dB ({rows[density].mean_ssim:.3f})"
            for density in densities
        ]
        lines.append(f"| {order} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _costs(moved: Sequence[MoveCost]) -> str:
    return "\n".join(
        f"| {cost.tokens} | {1000 * cost.seconds:.0f} ms | {100 * cost.moves:.1f} % | "
        f"{100 * cost.whole:.0f} % | {cost.dense:.1f}x |"
        for cost in moved
    )
