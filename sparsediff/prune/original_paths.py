"""Paths of a pruned model as they were before blocks were taken out of its lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.masks import Masks


def original_path(path: str, removed: Mapping[str, Collection[int]]) -> str:
    """Where a module of a pruned model was; ``removed``: by list of blocks, places that are gone."""
    found: list[str] = []
    for part in path.split("."):
        gone = removed.get(".".join(found))
        found.append(str(_original_place(int(part), gone)) if gone and part.isdigit() else part)
    return ".".join(found)


def split_place(path: str) -> tuple[str, int]:
    """The list that a block is in, and its place there."""
    home, _, place = path.rpartition(".")
    return home, int(place)


def original_masks(earlier: Masks, later: Masks) -> Masks:
    """Masks of the original model: `earlier` had made the model that `later` are for.

    Raises SparseError where the two do not follow on each other.
    """
    removed = removed_blocks(earlier)
    found = dict(earlier.kept)
    for key, kept in later.kept.items():
        kind, _, path = key.partition("/")
        first = f"{kind}/{original_path(path, removed)}"
        before = earlier.kept.get(first)
        if before is None:
            found[first] = kept
            continue
        if int(before.sum()) != len(kept):
            raise SparseError(
                f"{key} of the later masks has {len(kept)} units, but the earlier masks leave "
                f"{int(before.sum())} in {first}. Give the masks that made the model."
            )
        both = torch.zeros_like(before)
        both[before.nonzero().flatten()] = kept
        found[first] = both
    return Masks(kept=found)


def _original_place(place: int, removed: Collection[int]) -> int:
    for gone in sorted(removed):
        place += gone <= place
    return place


def removed_blocks(masks: Masks) -> dict[str, set[int]]:
    """By list of blocks, the places that masks take out of it."""
    found: dict[str, set[int]] = {}
    for key, kept in masks.kept.items():
        if key.startswith("blocks/") and not bool(kept.any()):
            home, place = split_place(key.removeprefix("blocks/"))
            found.setdefault(home, set()).add(place)
    return found
