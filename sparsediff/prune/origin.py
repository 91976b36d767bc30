"""Origin: whether masks of an original model are those that made a pruned one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.masks import Masks
from sparsediff.prune.original_paths import removed_blocks
from sparsediff.prune.pruned_folder import MASKS
from sparsediff.prune.pruned_model import sizes_of
from sparsediff.prune.pruning_sizes import is_left


def check_masks(model: Any, masks: Masks, *, where: str = "") -> None:
    """Raise SparseError unless masks leave as much of the original as a pruned model has.

    ``where`` names the model in errors.
    """
    sizes = sizes_of(model)
    gone = removed_blocks(masks)
    found: dict[str, Any] = {"heads": {}, "ffn": {}, "blocks": {}}
    for home, places in sizes.blocks.items():
        lost = gone.pop(home, set())
        found["blocks"][home] = tuple(sorted(set(range(len(places) + len(lost))) - lost))
    found["blocks"] |= dict.fromkeys(gone, ())
    for key, kept in masks.kept.items():
        kind, _, path = key.partition("/")
        if kind != "blocks" and not bool(kept.all()) and is_left(path, sizes.blocks):
            found[kind][path] = int(kept.sum())
    for kind, ours in found.items():
        theirs = dict(getattr(sizes, kind))
        for path in sorted({*ours, *theirs}):
            if ours.get(path) != theirs.get(path):
                raise SparseError(
                    f"These masks did not make {where or 'this model'}: {kind}/{path} has "
                    f"{_said(theirs.get(path))}, by the masks {_said(ours.get(path))}. Give those of "
                    f"the original; see original_masks for a model that was pruned twice."
                )


def earlier_masks(folder: Path | None, model: nn.Module) -> Masks | None:
    """What made a model that was loaded from a folder (None: the Hub); None for one that is whole.

    Raises SparseError where a pruned one's masks are not there, or others are.
    """
    path = None if folder is None else folder / MASKS
    if path is not None and path.is_file():
        masks = Masks.load(path)
        check_masks(model, masks, where=str(folder))
        return masks
    if sizes_of(model):
        raise SparseError(
            f"{folder or 'This model'} was pruned before, but {MASKS}, which says what it lost, is "
            f"not beside its weights. Prune a folder that `sparsediff prune` wrote, or the original."
        )
    return None


def _said(size: Any) -> str:
    return "all units" if size is None else f"{size} units" if isinstance(size, int) else str(size)
