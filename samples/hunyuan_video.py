"""HunyuanVideo 13B, five seconds of video at 720p: python samples/hunyuan_video.py"""

import sys

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.utils import export_to_video

import sparsediff  # noqa: F401 (gives pipelines enable_sparse_attention)

if "--tiny" in sys.argv:  # toy weights on the CPU, see tiny.py
    from tiny import HunyuanVideoPipeline

pipe = HunyuanVideoPipeline.from_pretrained(
    "hunyuanvideo-community/HunyuanVideo",
    dtype={"transformer": torch.bfloat16, "default": torch.float16},
)
pipe.vae.enable_tiling()
pipe.enable_model_cpu_offload()
pipe.enable_sparse_attention(density=0.25)  # text tokens always see everything
video = pipe(
    "A cat walks on the grass, realistic",
    height=720,
    width=1280,
    num_frames=129,
    num_inference_steps=50,
    generator=torch.Generator().manual_seed(0),
).frames[0]
print(pipe.sparse_attention_report())  # what ran sparse, what fell back and why
export_to_video(video, "hunyuan_video.mp4", fps=24)
