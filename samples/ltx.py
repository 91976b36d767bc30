"""LTX-Video 2B, seven seconds of video at 1216 x 704: python samples/ltx.py"""

import sys

import torch
from diffusers import LTXPipeline
from diffusers.utils import export_to_video

import sparsediff  # noqa: F401 (gives pipelines enable_sparse_attention)

if "--tiny" in sys.argv:  # toy weights on the CPU, see tiny.py
    from tiny import LTXPipeline

pipe = LTXPipeline.from_pretrained("Lightricks/LTX-Video", dtype=torch.bfloat16)
pipe.to("cuda")
pipe.enable_sparse_attention(density=0.25)  # compute a quarter of the blocks
video = pipe(
    "A woman with long brown hair smiles at another woman with long blonde hair, evening light",
    negative_prompt="worst quality, inconsistent motion, blurry, jittery, distorted",
    height=704,
    width=1216,
    num_frames=161,
    num_inference_steps=50,
    generator=torch.Generator().manual_seed(0),
).frames[0]
print(pipe.sparse_attention_report())  # what ran sparse, what fell back and why
export_to_video(video, "ltx.mp4", fps=24)
