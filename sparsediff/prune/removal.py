"""Removal: masked units really cut out, and the cut model checked against the masked one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.models import unwrapped
from sparsediff.prune.cutting import cut
from sparsediff.prune.exact_float32 import exact_float32
from sparsediff.prune.gates import gated
from sparsediff.prune.masks import Masks
from sparsediff.prune.plain_model import check_plain
from sparsediff.prune.pruned_model import registered, sizes_of
from sparsediff.prune.pruning_sizes import PruningSizes
from sparsediff.prune.structures import KINDS, Structure, structures_of

# Of the largest output in float32: the same sums without terms that are zero, in another order.
TOLERANCE = 1e-5


def remove(
    model: nn.Module,
    masks: Masks,
    *,
    batch: Mapping[str, Any] | None = None,
    heads_multiple_of: int = 1,
    tolerance: float = TOLERANCE,
) -> nn.Module:
    """A copy of a model without the units that `masks` gives up, checked on a batch.

    It is a model of the class ``Pruned<stock class>``, which `save_pretrained` and `from_pretrained`
    take like any other. One that was pruned before can be pruned again, by masks of what is left.

    ``batch``: arguments of the model; its output must be that of the masked model within
    `tolerance` of the largest value. Both are computed in float32, whatever the model's dtype: in half
    precision rounding hides what a wrong table does. That takes a copy of the model in float32 for the
    time of the check. None skips it: for a model that is not run here. Every attention keeps a
    multiple of ``heads_multiple_of`` heads, as context parallelism needs: masks that do not are an
    error, see `choose`.

    Raises SparseError where masks do not fit the model, or masked and cut model differ,
    AlreadyEnabledError while sparse attention is enabled on it, and UnsupportedModelError for a class
    that the tables or diffusers do not have, and for a model that is offloaded or cached.
    """
    if not isinstance(model, nn.Module) or not isinstance(masks, Masks):
        raise SparseError(
            f"remove needs a model and Masks, not {type(model).__name__} and {type(masks).__name__}: "
            f"of a pipeline such as pipe.transformer, of a mapping Masks(kept=...)."
        )
    model = unwrapped(model)
    check_plain(model)
    structures = structures_of(model, KINDS)
    masks.check(structures)
    _check_multiples(structures, masks, heads_multiple_of)
    if batch is not None:
        _check_table(model, structures, masks, batch, tolerance)
    smaller = copy.deepcopy(model)
    cut(smaller, structures, masks.kept)
    sizes = PruningSizes.of(structures, masks)
    return registered(smaller, sizes.after(sizes_of(model))) if sizes else smaller


@torch.no_grad()
def masked_difference(
    model: nn.Module, structures: Sequence[Structure], masks: Masks, batch: Mapping[str, Any]
) -> float:
    """Largest difference between the masked and the cut model's output, over the largest value.

    In float32, on a copy of the model. SparseError for an output that could not show a difference.
    """
    proof = copy.deepcopy(model).float().eval()
    arguments = {name: _in_float32(value) for name, value in batch.items()}
    with exact_float32(next(proof.parameters()).device):
        with gated(proof, structures, {key: kept.float() for key, kept in masks.kept.items()}):
            expected = _output(proof, arguments)
        cut(proof, structures, masks.kept)
        found = _output(proof, arguments)
    largest = float(expected.abs().max())
    if largest == 0 or not isfinite(largest):
        said = "only zeros" if largest == 0 else "values that are not finite"
        raise SparseError(
            f"The masked model gives {said} on the batch, which cannot show what the cut one does "
            f"wrong; nothing was changed. Look for NaN in weights and batch; a model that is not "
            f"trained yet is cut without a batch."
        )
    return float((expected - found).abs().max()) / largest


def _check_table(
    model: nn.Module,
    structures: Sequence[Structure],
    masks: Masks,
    batch: Mapping[str, Any],
    tolerance: float,
) -> None:
    try:
        difference = masked_difference(model, structures, masks, batch)
    except SparseError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise SparseError(
            f"The masked or the cut model does not run on the batch: {error}. Either the batch is none "
            f"of this model's, or the table of structures is wrong for it; nothing was changed."
        ) from error
    if not difference <= tolerance:
        raise SparseError(
            f"The cut model differs from the masked one by {difference:.1e} of its largest value, "
            f"more than {tolerance:.1e}: the table of structures is wrong for this model. Please "
            f"report it with the model's configuration; nothing was changed."
        )


def _output(model: Callable[..., Any], batch: Mapping[str, Any]) -> Tensor:
    output: Tensor = model(**{**batch, "return_dict": False})[0]
    return output


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {name: _in_float32(inner) for name, inner in value.items()}
    return type(value)(map(_in_float32, value)) if isinstance(value, list | tuple) else value


def _check_multiples(structures: Sequence[Structure], masks: Masks, multiple: int) -> None:
    if multiple < 1:
        raise SparseError(f"heads_multiple_of={multiple}: needs a whole number from 1 on.")
    for one in structures:
        kept = masks.kept.get(one.key)
        if one.kind == "heads" and kept is not None and int(kept.sum()) % multiple:
            raise SparseError(
                f"{one.key} keeps {int(kept.sum())} heads, which is no multiple of "
                f"heads_multiple_of={multiple}. Choose the masks with the same heads_multiple_of."
            )
