"""Smoke test of an installed wheel, run by CI from an empty folder: generate a few sparse steps."""

import sys
from pathlib import Path

import torch
from diffusers import WanPipeline

import sparsediff
import sparsediff.kernels
import sparsediff.search
import sparsediff.ui

if Path(sparsediff.__file__).is_relative_to(Path(__file__).parents[2] / "sparsediff"):
    raise SystemExit("this is the checkout, not the installed wheel")
pipe = WanPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
pipe.enable_sparse_attention(density=0.25)
pipe(
    "a red circle moving right",
    height=64,
    width=64,
    num_frames=17,
    num_inference_steps=5,
    max_sequence_length=32,
    output_type="latent",
    generator=torch.Generator().manual_seed(0),
)
report = pipe.sparse_attention_report()
print(report)
if not report.sparse_calls or report.fallbacks:
    raise SystemExit("nothing ran sparse")
