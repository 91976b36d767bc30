"""Measure a shapes-unet pipeline folder: accuracy on prompts, loss, a picture of samples.

python samples/train_unet/evaluate_unet.py accuracy
python samples/train_unet/evaluate_unet.py loss
python samples/train_unet/evaluate_unet.py sheet --output samples.png
python samples/train_unet/evaluate_unet.py ceiling   (the judge on drawn pictures)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]

from classify import classify, right_answers  # noqa: E402
from clips import generator_of  # noqa: E402
from pictures import NAMES, captions_of, draw_pictures, every_caption, labels_of  # noqa: E402
from train_unet import PHASES, LatentPictures, encoded_pictures, velocity_loss  # noqa: E402

import sparsediff  # noqa: E402, F401  # with it diffusers finds the classes of pruned models

FIRST_SEED = 1000
SHEET_SIZE = (8, 12)
MODEL = HERE.parent / "models/shapes-unet"


def load(args: argparse.Namespace) -> tuple[StableDiffusionPipeline, dict[str, Any]]:
    """The pipeline as its generation.json says, and its recommended call with the flags applied."""
    generation = json.loads((args.model / "generation.json").read_text())
    dtype = getattr(torch, generation["dtype"])
    pipe = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    call = generation["call"]
    for flag, name in ((args.steps, "num_inference_steps"), (args.guidance, "guidance_scale")):
        if flag is not None:
            call[name] = flag
    return pipe.to(args.device), call


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline, prompts: Sequence[str], call: dict[str, Any], batch: int
) -> Tensor:
    """Pictures `[prompts, 3, height, width]` in 0..1; prompt n has the seed FIRST_SEED + n."""
    parts = []
    for first in range(0, len(prompts), batch):
        some = list(prompts[first : first + batch])
        generators = [
            torch.Generator().manual_seed(FIRST_SEED + first + n) for n in range(len(some))
        ]
        result = pipe(prompt=some, generator=generators, output_type="pt", **call)
        parts.append(result.images.float().cpu())
    return torch.cat(parts)


def score(pictures: Tensor, prompts: Sequence[str]) -> dict[str, Any]:
    """Shares of prompts that the judge finds followed, by name and at once; misses by shape.

    `overlap` is the mean intersection over union with the best template.
    """
    verdicts = [classify(picture[None]) for picture in pictures]
    wanted = [labels_of(prompt) for prompt in prompts]
    rows = [right_answers(v, w, NAMES) for v, w in zip(verdicts, wanted, strict=True)]
    result: dict[str, Any] = {
        name: round(sum(row[name] for row in rows) / len(rows), 4) for name in NAMES
    }
    result["all"] = round(sum(all(row.values()) for row in rows) / len(rows), 4)
    result["overlap"] = round(sum(v.overlap for v in verdicts) / len(rows), 4)
    result["missed"] = {
        choice: sum(not r["shape"] for r, w in zip(rows, wanted, strict=True) if w["shape"] == n)
        for n, choice in enumerate(NAMES["shape"])
    }
    return result


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """Share of the 96 prompts (each shape, color and background) that the judge finds followed."""
    pipe, call = load(args)
    prompts = every_caption()[:: args.every]
    start = time.monotonic()
    pictures = generate(pipe, prompts, call, args.batch)
    seconds = round((time.monotonic() - start) / len(prompts), 3)
    return {
        "call": call,
        "prompts": len(prompts),
        "seconds_each": seconds,
        **score(pictures, prompts),
    }


@torch.no_grad()
def loss(args: argparse.Namespace) -> dict[str, Any]:
    """Loss of fixed pictures and noise at evenly spread noise levels; training never draws them."""
    pipe, _ = load(args)
    pictures = encoded_pictures(pipe.vae, replace(PHASES[-1], pictures=256), seed=10_001)
    noise = torch.randn(pictures.latents.shape, generator=generator_of(10_002))
    # Neighbouring pictures get distant levels, so that every part of them sees all levels.
    times = torch.arange(256).view(16, 16).mT.flatten() * 1000 // 256
    total = 0.0
    for rows in torch.arange(256).split(32):
        some = LatentPictures(pictures.latents[rows], pictures.text[rows])
        part = velocity_loss(pipe.unet, pipe.scheduler, some, times[rows], noise[rows])
        total += float(part) * len(rows) / 256
    return {"pictures": 256, "velocity_loss": round(total, 4)}


def sheet(args: argparse.Namespace) -> dict[str, Any]:
    """One picture of each of the 96 prompts."""
    pipe, call = load(args)
    pictures = generate(pipe, every_caption(), call, args.batch)
    rows, columns = SHEET_SIZE
    grid = pictures.unflatten(0, (columns, rows)).permute(2, 1, 3, 0, 4).flatten(1, 2).flatten(2)
    pixels = (grid.clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous()
    picture = Image.fromarray(pixels.numpy()).quantize(128, dither=Image.Dither.NONE)
    picture.save(args.output, optimize=True)
    return {"picture": str(args.output), "call": call}


@torch.no_grad()
def ceiling(args: argparse.Namespace) -> dict[str, Any]:
    """What the judge finds on drawn pictures, and on the same pictures after the autoencoder."""
    pipe, _ = load(args)
    labels, pictures = draw_pictures(192, generator_of(11))
    prompts = captions_of(labels, torch.ones(192, dtype=torch.bool))
    decoded = [
        pipe.vae.decode(pipe.vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
        for part in pictures.split(32)
    ]
    error = ((torch.cat(decoded) - pictures) / 2).pow(2).mean((1, 2, 3))
    return {
        "rendered": score((pictures + 1) / 2, prompts),
        "after_vae": score((torch.cat(decoded) + 1) / 2, prompts),
        "vae_psnr": round(float(-10 * error.log10().mean()), 2),
    }


COMMANDS = {"accuracy": accuracy, "loss": loss, "sheet": sheet, "ceiling": ceiling}


def main() -> None:
    """Run one measurement and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--every", type=int, default=1, help="take every n-th prompt only")
    parser.add_argument("--batch", type=int, default=24, help="prompts at a time")
    parser.add_argument("--steps", type=int, help="instead of the recommended steps")
    parser.add_argument("--guidance", type=float, help="instead of the recommended guidance")
    parser.add_argument("--output", type=Path, default="samples.png", help="picture of `sheet`")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps({"command": args.command, **COMMANDS[args.command](args)}, indent=1))


if __name__ == "__main__":
    main()
