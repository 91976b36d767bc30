"""A small model for each part of the run: masks by bucket of timesteps, really cut out.

The variant of MaskUNet's idea that is faster: what a timestep does not need is not there.
"""

from diffusers import ModelMixin

from sparsediff.prune.buckets.bucket_scores import loss_scores, wanda_scores
from sparsediff.prune.buckets.bucketed_model import BucketedModel, Memory, bucketed
from sparsediff.prune.buckets.timestep_buckets import Buckets

__all__ = [
    "BucketedModel",
    "Buckets",
    "Memory",
    "ModelMixin",  # diffusers asks the package of a saved class for it
    "bucketed",
    "loss_scores",
    "wanda_scores",
]
