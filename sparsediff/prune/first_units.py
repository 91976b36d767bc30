"""From the sizes of a pruned model to what is cut out of an empty stock model: the last units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.pruning_sizes import PruningSizes, block_lists
from sparsediff.prune.structures import Structure

_SHOWN = 5  # problems


def first_units(sizes: PruningSizes, structures: Sequence[Structure]) -> dict[str, Tensor]:
    """By key of the stock model's structures, bool ``[units]``: as many as are left come first.

    Blocks are those that are left. Raises SparseError where a path or a size is not one of the model.
    """
    units = {one.key: one.units for one in structures}
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for kind, named in (("heads", sizes.heads), ("ffn", sizes.ffn)):
        for path, size in named.items():
            whole = units.get(f"{kind}/{path}")
            if whole is None:
                problems.append(f"pruning.{kind} names {path!r:.80}, which is none of the model's.")
            elif size > whole:
                problems.append(f"pruning.{kind}.{path} = {size}, of {whole} that the model has.")
            else:
                found[f"{kind}/{path}"] = torch.arange(whole) < size
    lists = block_lists(structures)
    for path, kept in sizes.blocks.items():
        places = lists.get(path, {})
        if not places:
            problems.append(f"pruning.blocks names {path!r:.80}, which is no list of blocks.")
        elif set(kept) - set(places):
            problems.append(f"pruning.blocks.{path} has place {max(kept)} of {len(places)} blocks.")
        found |= {one.key: torch.tensor([place in kept]) for place, one in places.items()}
    if problems:
        more = " And more." if len(problems) > _SHOWN else ""
        raise SparseError(f"{' '.join(problems[:_SHOWN])}{more} Its config was changed, or broken.")
    return found
