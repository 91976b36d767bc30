"""CogVideoX 1.5 5B, five seconds of video at 1360 x 768: python samples/cogvideox15.py"""

import sys

import torch
from diffusers import CogVideoXPipeline
from diffusers.utils import export_to_video

import sparsediff  # noqa: F401 (gives pipelines enable_sparse_attention)

if "--tiny" in sys.argv:  # toy weights on the CPU, see tiny.py
    from tiny import CogVideoXPipeline

pipe = CogVideoXPipeline.from_pretrained("zai-org/CogVideoX1.5-5B", dtype=torch.bfloat16)
pipe.vae.enable_tiling()
pipe.enable_model_cpu_offload()
pipe.enable_sparse_attention(density=0.25)  # text tokens always see everything
video = pipe(
    "A panda in a red jacket plays a small guitar in a bamboo forest, other pandas listen",
    height=768,
    width=1360,
    num_frames=81,
    num_inference_steps=50,
    guidance_scale=6.0,
    generator=torch.Generator().manual_seed(0),
).frames[0]
print(pipe.sparse_attention_report())  # what ran sparse, what fell back and why
export_to_video(video, "cogvideox15.mp4", fps=16)
