"""Wan 2.1 14B, five seconds of video at 720p: python samples/wan21.py"""

import sys

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from diffusers.utils import export_to_video

import sparsediff  # noqa: F401 (gives pipelines enable_sparse_attention)

if "--tiny" in sys.argv:  # toy weights on the CPU, see tiny.py
    from tiny import WanPipeline

pipe = WanPipeline.from_pretrained(
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    dtype={"vae": torch.float32, "default": torch.bfloat16},
)
pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=5.0)
pipe.enable_model_cpu_offload()
pipe.enable_sparse_attention(density=0.25)  # compute a quarter of the blocks
video = pipe(
    "A cat and a dog bake a cake together in a sunlit kitchen, the dog stirs the batter",
    negative_prompt="static, blurred details, worst quality, low quality",
    height=720,
    width=1280,
    num_frames=81,
    num_inference_steps=50,
    guidance_scale=5.0,
    generator=torch.Generator().manual_seed(0),
).frames[0]
print(pipe.sparse_attention_report())  # what ran sparse, what fell back and why
export_to_video(video, "wan21.mp4", fps=16)
