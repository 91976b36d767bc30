"""Put the trained parts together as a StableDiffusionPipeline folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]

from caption_tokens import build_text_encoder, build_tokenizer  # noqa: E402
from train_unet import build_scheduler  # noqa: E402

GENERATION = {
    "schema": "sparsediff.generation/1",
    "prompt": "a red circle on a dark background",
    "call": {"height": 64, "width": 64, "num_inference_steps": 20, "guidance_scale": 3.0},
    "dtype": "float32",
    "autocast": None,
}


def build(vae: Path, unet: Path, output: Path) -> None:
    """Write the pipeline of the two trained parts and its recommended call to `output`.

    The weights lie there in half precision, which is finer than bfloat16 at their size; those of
    the text encoder stay in float32, because transformers loads a model as it was saved.
    """
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float16),
        text_encoder=build_text_encoder(),
        tokenizer=build_tokenizer(),
        unet=UNet2DConditionModel.from_pretrained(unet, torch_dtype=torch.float16),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
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
    parser.add_argument("--vae", type=Path, default="samples/models/shapes-unet/vae")
    parser.add_argument("--unet", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    build(args.vae, args.unet, args.output)
    size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
    print(f"Wrote {args.output}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
