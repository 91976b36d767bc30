"""Removal: masked units really cut out, and the cut model checked against the masked one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.cutting import cut
from sparsediff.prune.gates import gated
from sparsediff.prune.masks import Masks
from sparsediff.prune.pruned_model import registered, sizes_of
from sparsediff.prune.pruning_sizes import PruningSizes
from sparsediff.prune.structures import KINDS, Structure, structures_of


def remove(
    model: nn.Module,
    masks: Masks,
    *,
    batch: Mapping[str, Any] | None = None,
    heads_multiple_of: int = 1,
    tolerance: float | None = None,
) -> nn.Module:
    """A copy of a model without the units that `masks` gives up, checked on a batch.

    It is a model of the class ``Pruned<stock class>``, which `save_pretrained` and `from_pretrained`
    take like any other. One that was pruned before can be pruned again, by masks of what is left.

    ``batch``: arguments of the model; its output must be that of the masked model within
    `tolerance` of the largest value (by default 1e-5 in float32, 64 times the dtype's eps
    otherwise). None skips the check: for a model that is not run here. Every attention keeps a
    multiple of ``heads_multiple_of`` heads, as context parallelism needs: masks that do not are an
    error, see `choose`.

    Raises SparseError where masks do not fit the model, or masked and cut model differ, and
    UnsupportedModelError for a class that the tables or diffusers do not have.
    """
    structures = structures_of(model, KINDS)
    masks.check(structures)
    _check_multiples(structures, masks, heads_multiple_of)
    smaller = copy.deepcopy(model)
    cut(smaller, structures, masks.kept)
    sizes = PruningSizes.of(structures, masks)
    if sizes:
        registered(smaller, sizes.after(sizes_of(model)))
    if batch is not None:
        try:
            difference = masked_difference(model, smaller, structures, masks, batch)
        except RuntimeError as error:
            raise SparseError(
                f"The masked or the cut model does not run on the batch: {error}. Either the batch "
                f"is none of this model's, or the table of structures is wrong for it; nothing was "
                f"changed."
            ) from error
        allowed = _allowed(model) if tolerance is None else tolerance
        if not difference <= allowed:
            raise SparseError(
                f"The cut model differs from the masked one by {difference:.1e} of its largest value, "
                f"more than {allowed:.1e}: the table of structures is wrong for this model. Please "
                f"report it with the model's configuration; nothing was changed."
            )
    return smaller


@torch.no_grad()
def masked_difference(
    model: nn.Module,
    smaller: nn.Module,
    structures: list[Structure],
    masks: Masks,
    batch: Mapping[str, Any],
) -> float:
    """Largest difference between the masked and the cut model's output, over the largest value."""
    values = {key: kept.float() for key, kept in masks.kept.items()}
    with gated(model, structures, values):
        expected = _output(model, batch)
    found = _output(smaller, batch)
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))


def _output(model: Callable[..., Any], batch: Mapping[str, Any]) -> Tensor:
    output: Tensor = model(**{**batch, "return_dict": False})[0]
    return output.float()


def _allowed(model: nn.Module) -> float:
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    return 1e-5 if dtype == torch.float32 else 64 * torch.finfo(dtype).eps


def _check_multiples(structures: list[Structure], masks: Masks, multiple: int) -> None:
    if multiple < 1:
        raise SparseError(f"heads_multiple_of={multiple}: needs a whole number from 1 on.")
    for one in structures:
        kept = masks.kept.get(one.key)
        if one.kind == "heads" and kept is not None and int(kept.sum()) % multiple:
            raise SparseError(
                f"{one.key} keeps {int(kept.sum())} heads, which is no multiple of "
                f"heads_multiple_of={multiple}. Choose the masks with the same heads_multiple_of."
            )
