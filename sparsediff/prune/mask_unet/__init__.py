"""MaskUNet: weight masks of a UNet's decoder that follow timestep and sample (arXiv 2505.03097).

For quality, not for speed: weights are multiplied by zeros, so every step takes longer than without.
"""

from sparsediff.prune.mask_unet.decoder_masks import DecoderMasks
from sparsediff.prune.mask_unet.mask_config import MaskConfig
from sparsediff.prune.mask_unet.mask_training import MaskTraining, train_masks, unet_denoiser

__all__ = ["DecoderMasks", "MaskConfig", "MaskTraining", "train_masks", "unet_denoiser"]
