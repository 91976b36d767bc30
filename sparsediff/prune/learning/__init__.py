"""Masks learnt end to end: which units the whole denoising chain can do without (EcoDiff)."""

from sparsediff.prune.learning.mask_learning import MaskLearning, learn_masks
from sparsediff.prune.learning.mask_trainer import LearnFigures
from sparsediff.prune.learning.settings import LearnSettings

__all__ = ["LearnFigures", "LearnSettings", "MaskLearning", "learn_masks"]
