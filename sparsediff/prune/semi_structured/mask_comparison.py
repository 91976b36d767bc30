"""What masks cost when they are hard, each by the same lessons: learnt ones are not always better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean

import torch
from torch import nn

from sparsediff.prune.semi_structured.mask_training import Lesson
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks

# Lessons of these numbers and above are none that a training learns from.
_UNSEEN = 10**9


@torch.no_grad()
def mask_losses(
    model: nn.Module,
    lesson: Lesson,
    masks: Mapping[str, SemiStructuredMasks],
    *,
    batches: int = 16,
) -> dict[str, float]:
    """The mean loss of a model with each of some masks applied, by name, over unseen lessons.

    The model's weights are put back, bit by bit. Raises SparseError where masks do not fit.
    """
    parts = [lesson.prepare(_UNSEEN + number) for number in range(batches)]
    found = {}
    for name, one in masks.items():
        with _applied(model, one):
            found[name] = fmean(float(lesson.loss(part)) for part in parts)
    return found


@contextmanager
def _applied(model: nn.Module, masks: SemiStructuredMasks) -> Iterator[None]:
    masks.check(model)
    weights = {path: model.get_submodule(path).weight for path in masks.choices}
    before = {path: weight.detach().clone() for path, weight in weights.items()}  # type: ignore[operator]
    try:
        masks.apply(model)
        yield
    finally:
        for path, weight in weights.items():
            weight.copy_(before[path])  # type: ignore[operator]
