"""Costs of one search: measured once, and kept in its folder, so that a resumed one counts the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import read_object
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.search import TokenGrid
from sparsediff.search.offline.cost import Cost, FlopsCost, MeasuredCost, measured_cost
from sparsediff.search.offline.cost_case import CostCase

FILE = "costs.json"
SCHEMA = "sparsediff.search-costs/1"
Shape = tuple[int, int]  # heads and head dim of a layer


def shapes_of(fingerprint: Fingerprint) -> list[Shape]:
    """Heads and head dim of every layer, in the session's order."""
    return [
        shape
        for component in fingerprint.components
        for shape in zip(component.heads, component.head_dims, strict=True)
    ]


def measure_costs(
    folder: RunFolder,
    shapes: Sequence[Shape],
    *,
    settings: SearchSettings,
    device: str,
    grid: TokenGrid,
    searches_per_call: float,
) -> None:
    """Write the costs of every shape of layer into the folder, unless they are there already."""
    if (folder.path / FILE).is_file():
        return
    found: dict[str, Any] = {}
    for heads, head_dim in sorted(set(shapes)):
        case = CostCase(
            grid=grid,
            heads=heads,
            head_dim=head_dim,
            dtype=getattr(torch, settings.autocast or settings.dtype),
            device=torch.device(device),
            block_size=settings.options.block_size,
            backend=settings.backend,
        )
        cost: Cost = FlopsCost(reason="as asked")
        if settings.options.cost == "measured":
            cost = measured_cost(case, searches_per_call=searches_per_call)
        found[f"{heads}x{head_dim}"] = _plain(cost)
    folder.write_json(FILE, {"schema": SCHEMA, "costs": found})


def read_costs(folder: RunFolder) -> dict[Shape, Cost]:
    """The costs in the folder by shape of layer; raises SparseError for a file that is not ours."""
    path = folder.path / FILE
    values = read_object(path)
    try:
        if values["schema"] != SCHEMA:
            raise ValueError(f"its schema is {values['schema']!r}")
        return {_shape(name): _cost(plain) for name, plain in values["costs"].items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SparseError(
            f"{path} holds no costs of a search: {error}. Remove it; a resumed search measures anew."
        ) from None


def _plain(cost: Cost) -> dict[str, Any]:
    if isinstance(cost, MeasuredCost):
        return {"measured": cost.to_dict()}
    return {"flops": cost.reason if isinstance(cost, FlopsCost) else ""}


def _cost(plain: Mapping[str, Any]) -> Cost:
    if "measured" in plain:
        return MeasuredCost.from_dict(plain["measured"])
    return FlopsCost(reason=plain["flops"])


def _shape(name: str) -> Shape:
    heads, _, head_dim = name.partition("x")
    return int(heads), int(head_dim)
