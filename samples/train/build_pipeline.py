"""Put the trained parts together as a WanPipeline folder of bfloat16 safetensors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from captions import build_text_encoder, build_tokenizer
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

GENERATION = {
    "schema": "sparsediff.generation/1",
    "prompt": "a red circle moving right on a dark background",
    "call": {
        "height": 64,
        "width": 64,
        "num_frames": 17,
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
        "max_sequence_length": 32,
    },
    "fps": 8,
    "dtype": "bfloat16",
    "autocast": None,
}


def build(vae: Path, transformer: Path, output: Path, shift: float) -> None:
    """Write the pipeline of the two trained parts and its recommended call to `output`.

    The small modules that Wan keeps in float32 stay in float32.
    """
    pipe = WanPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=build_text_encoder().to(torch.bfloat16),
        vae=AutoencoderKLWan.from_pretrained(vae, torch_dtype=torch.bfloat16),
        transformer=WanTransformer3DModel.from_pretrained(transformer, torch_dtype=torch.bfloat16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
    )
    pipe.save_pretrained(output, safe_serialization=True)
    for file in output.glob("*/config.json"):
        # The folder a part came from is of no use to others.
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n")
    (output / "generation.json").write_text(json.dumps(GENERATION, indent=2) + "\n")
    for file in output.rglob("*.*"):
        if file.is_file():
            file.chmod(0o644)


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, default="samples/models/shapes-wan/vae")
    parser.add_argument("--transformer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shift", type=float, default=8.0, help="of the noise levels")
    args = parser.parse_args()
    build(args.vae, args.transformer, args.output, args.shift)
    size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
    print(f"Wrote {args.output}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
