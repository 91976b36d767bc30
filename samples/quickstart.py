"""The README's example, from a fresh checkout: python samples/quickstart.py [MODEL] [OUTPUT.mp4]"""

import sys
from pathlib import Path

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

import sparsediff

MODEL = Path(__file__).parent / "models" / "shapes-wan"


def main(model: str = str(MODEL), output: str = "quickstart.mp4") -> sparsediff.RunReport:
    """Generate one sparse video, write it, and say what ran sparse."""
    pipe = WanPipeline.from_pretrained(model)
    pipe.enable_sparse_attention(density=0.25)  # compute a quarter of the blocks
    video = pipe(
        "a red circle moving right",
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=10,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(0),
    ).frames[0]
    report = pipe.sparse_attention_report()  # what ran sparse, what fell back and why
    pipe.disable_sparse_attention()  # bit-exact undo
    export_to_video(video, output, fps=8)
    print(report)
    print(f"wrote {output}")
    return report


if __name__ == "__main__":
    main(*sys.argv[1:])
