"""Wan 2.2 A14B, whose two transformers share the steps: python samples/wan22.py"""

import sys

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

import sparsediff  # noqa: F401 (gives pipelines enable_sparse_attention)

if "--tiny" in sys.argv:  # toy weights on the CPU, see tiny.py
    from tiny import WanPipeline

pipe = WanPipeline.from_pretrained(
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    dtype={"vae": torch.float32, "default": torch.bfloat16},
)
pipe.enable_model_cpu_offload()  # one transformer on the GPU at a time
pipe.enable_sparse_attention(density=0.25)  # in both
video = pipe(
    "Two cats in boxing gear fight on a spotlit stage, the crowd behind them in the dark",
    negative_prompt="static, blurred details, worst quality, low quality",
    height=720,
    width=1280,
    num_frames=81,
    num_inference_steps=40,
    guidance_scale=4.0,
    guidance_scale_2=3.0,
    generator=torch.Generator().manual_seed(0),
).frames[0]
print(pipe.sparse_attention_report())  # what ran sparse, what fell back and why
export_to_video(video, "wan22.mp4", fps=16)
