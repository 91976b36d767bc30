"""Flux.1 dev 12B, an image of two megapixels: python samples/flux.py"""

import sys

import torch
from diffusers import FluxPipeline

import sparsediff  # noqa: F401 (gives pipelines enable_sparse_attention)

if "--tiny" in sys.argv:  # toy weights on the CPU, see tiny.py
    from tiny import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe.enable_sparse_attention(density=0.25)  # text tokens always see everything
image = pipe(
    "A market square in the rain at night, neon signs mirrored in the puddles, wide angle",
    height=1088,
    width=1920,
    num_inference_steps=28,
    guidance_scale=3.5,
    generator=torch.Generator().manual_seed(0),
).images[0]
print(pipe.sparse_attention_report())  # what ran sparse, what fell back and why
image.save("flux.png")
