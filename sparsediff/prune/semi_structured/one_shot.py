"""2:4 masks without training: the two largest of four, by magnitude or by Wanda's score."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.candidates import best_choices, groups
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks


@torch.no_grad()
def magnitude_masks(layers: Mapping[str, nn.Linear]) -> SemiStructuredMasks:
    """Of every four weights the two of largest magnitude stay."""
    return SemiStructuredMasks(
        choices={
            path: best_choices(groups(layer.weight.detach()).abs())
            for path, layer in layers.items()
        }
    )


@torch.no_grad()
def wanda_masks(
    layers: Mapping[str, nn.Linear], squares: Mapping[str, Tensor]
) -> SemiStructuredMasks:
    """Of every four weights the two of largest ``|W| ||x||`` stay (Wanda, arXiv 2306.11695).

    ``squares``: by layer the sums (or means) of squares of its inputs over tokens, ``[in]``, from
    calibration. Raises SparseError where they are missing, negative or of another length.
    """
    choices = {}
    for path, layer in layers.items():
        seen = squares.get(path)
        right = seen is not None and list(seen.shape) == [layer.in_features]
        if seen is None or not right or not _sizes(seen):
            found = "nothing" if seen is None else f"{list(seen.shape)}"
            raise SparseError(
                f"Of the inputs of {path} there is {found}; Wanda needs finite sums of squares "
                f"of {layer.in_features} inputs. Record them with the layers that are masked."
            )
        size = seen.to(layer.weight.device, torch.float32).sqrt()
        choices[path] = best_choices(groups(layer.weight.detach().float().abs() * size))
    return SemiStructuredMasks(choices=choices)


def _sizes(squares: Tensor) -> bool:
    return bool((squares.isfinite() & (squares >= 0)).all())
