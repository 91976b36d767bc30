"""Weights set to zero one by one, as in the study of Stable Diffusion 2 (arXiv 2411.15113).

This gives no speed and no smaller files: the matrices stay as large as they are. It tells how much of
a model is not needed. For a smaller model cut structures (`remove`), for 2:4 see `semi_structured`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.calibration import StepWeights, check_step_weights, layer_inputs
from sparsediff.prune.criteria.owl import check_owl, density_shifts, outlier_share
from sparsediff.prune.subject import Subject

Metric = Literal["magnitude", "wanda"]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightPruning:
    """``ratio``: share of each layer's weights that becomes zero, in [0, 1].

    ``metric``: "magnitude", by a threshold over the whole matrix; "wanda", |W| times the norm of its
    input, in each output row on its own, all layers seen in the dense model (the study's text encoder
    is pruned layer after layer). ``linear_only``, as in the study; False takes convolutions too, which
    is another, harsher experiment. ``owl``: shares of layers moved by their outliers, see `OWL`.

    Raises SparseError for values out of range, and for Wanda with convolutions.
    """

    ratio: float
    metric: Metric = "magnitude"
    linear_only: bool = True
    owl: bool = False
    outlier: float = 7.0
    spread: float = 0.08
    step_weights: StepWeights = "even"

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not 0 <= self.ratio <= 1:
            raise SparseError(f"ratio={self.ratio!r}: needs the share to zero, in [0, 1].")
        if self.metric not in get_args(Metric):
            raise SparseError(
                f"metric={self.metric!r}: needs one of {', '.join(get_args(Metric))}."
            )
        if self.metric == "wanda" and not self.linear_only:
            raise SparseError("metric='wanda' looks at inputs of linear layers; set linear_only.")
        check_owl(self.outlier, self.spread)
        check_step_weights(self.step_weights)

    @property
    def needs_prompts(self) -> bool:
        """Whether it runs the pipeline over prompts."""
        return self.metric == "wanda"


@torch.no_grad()
def weight_masks(subject: Subject, settings: WeightPruning) -> dict[str, Tensor]:
    """By layer path, a bool tensor like its weight, on the CPU: True for weights that stay.

    Raises SparseError for a model without such layers, weights that are not finite, and for Wanda
    without a pipeline.
    """
    kinds = (nn.Linear,) if settings.linear_only else (nn.Linear, *_CONVOLUTIONS)
    layers = {path: one for path, one in subject.model.named_modules() if isinstance(one, kinds)}
    if not layers:
        raise SparseError(f"{type(subject.model).__name__} has no layers that could be pruned.")
    metrics = _Metrics(subject, settings, layers)
    shares = dict.fromkeys(layers, settings.ratio)
    if settings.owl:
        outliers = [outlier_share(metrics.of(path), settings.outlier) for path in layers]
        sizes = [layer.weight.numel() for layer in layers.values()]
        shifts = density_shifts(outliers, sizes, settings.spread)
        shares = {
            path: min(max(settings.ratio - shift, 0.0), 1.0)
            for path, shift in zip(layers, shifts, strict=True)
        }
    rule = _above_threshold if settings.metric == "magnitude" else _best_of_rows
    return {path: rule(metrics.of(path), share).cpu() for path, share in shares.items()}


def zeroed(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model whose weights are zero where the masks say so; as large and slow as it was.

    Raises SparseError for masks of another model.
    """
    changed = copy.deepcopy(model)
    layers = dict(changed.named_modules())
    with torch.no_grad():
        for path, stay in masks.items():
            weight = getattr(layers.get(path), "weight", None)
            if not isinstance(weight, Tensor) or weight.shape != stay.shape:
                found = "none" if weight is None else list(weight.shape)
                raise SparseError(
                    f"The mask of {path} is {list(stay.shape)}, the model's weight {found}; needs "
                    f"masks that were made of this model."
                )
            weight.masked_fill_(~stay.to(weight.device), 0)
    return changed


class _Metrics:
    """How much every weight of a layer matters, made when asked for."""

    def __init__(
        self, subject: Subject, settings: WeightPruning, layers: Mapping[str, nn.Module]
    ) -> None:
        self.layers = layers
        self.inputs = None
        if settings.needs_prompts:
            self.inputs = layer_inputs(subject, layers, step_weights=settings.step_weights)

    def of(self, path: str) -> Tensor:
        """Fp32, in the weight's shape."""
        weight: Tensor = self.layers[path].weight.detach().float().abs()  # type: ignore[operator]
        if self.inputs is not None:
            weight = weight * self.inputs.norms(path).to(weight.device)
        if not bool(weight.isfinite().all()):
            raise SparseError(f"Weights of {path} are not finite: nothing can be chosen by them.")
        return weight


def _above_threshold(metric: Tensor, ratio: float) -> Tensor:
    """The study's rule: what is not above the int(n ratio)-th smallest goes, equal ones together."""
    count = _count(metric.numel(), ratio)
    if count == 0:  # the study's index would be -1, the largest: all would go
        return torch.ones_like(metric, dtype=torch.bool)
    return metric > metric.flatten().kthvalue(count).values


def _best_of_rows(metric: Tensor, ratio: float) -> Tensor:
    """Wanda's rule: in each row the int(n ratio) smallest go; of equal ones the first."""
    count = _count(metric.shape[1], ratio)
    gone = metric.sort(dim=1, stable=True).indices[:, :count]
    return torch.ones_like(metric, dtype=torch.bool).scatter_(1, gone, False)


def _count(numbers: int, ratio: float) -> int:
    """int(n ratio), but for the rounding of products such as 100 * 0.58, which is below 58."""
    return int(numbers * ratio + 1e-6)
