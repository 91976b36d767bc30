"""2:4 masks without training: the two largest of four, by magnitude or by Wanda's score."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.layer_inputs import LayerInputs
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
def wanda_masks(layers: Mapping[str, nn.Linear], inputs: LayerInputs) -> SemiStructuredMasks:
    """Of every four weights the two of largest ``|W| ||x||`` stay (Wanda, arXiv 2306.11695).

    ``inputs``: what calibration saw of the layers, see `layer_inputs`. Raises SparseError where it saw
    nothing of one, or inputs of another size.
    """
    choices = {}
    for path, layer in layers.items():
        seen = inputs.squares.get(path)
        if seen is None or list(seen.shape) != [layer.in_features]:
            found = "nothing" if seen is None else f"sums of {list(seen.shape)}"
            raise SparseError(
                f"Of the inputs of {path} calibration has {found}; Wanda needs them of "
                f"{layer.in_features} inputs. Calibrate with the layers that are masked."
            )
        size = inputs.norms(path).to(layer.weight.device)
        choices[path] = best_choices(groups(layer.weight.detach().float().abs() * size))
    return SemiStructuredMasks(choices=choices)
