"""Measure a shapes-wan pipeline folder: accuracy on prompts, loss, a picture of samples.

python samples/train/evaluate.py accuracy --prompts samples/prompts.txt
python samples/train/evaluate.py loss
python samples/train/evaluate.py sheet --output samples.png
python samples/train/evaluate.py ceiling   (the judge on rendered clips)
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from captions import captions_of, labels_of
from classify import Verdict, classify, right_answers
from clips import ClipSource, generator_of
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from PIL import Image
from recipe import KINDS
from shapes import BACKGROUND_NAMES, COLOR_NAMES, MOTION_NAMES, SHAPES, draw_labels, render
from torch import Tensor
from train_transformer import flow_loss

NAMES = {
    "shape": SHAPES,
    "color": COLOR_NAMES,
    "motion": MOTION_NAMES,
    "background": BACKGROUND_NAMES,
}
FIRST_SEED = 1000
SHEET = (
    "a red circle moving right on a dark background",
    "a blue square moving left on a light background",
    "a yellow triangle moving up on a dark background",
    "a green star moving down on a light background",
    "an orange ring bouncing on a dark background",
    "a purple cross standing still on a light background",
    "a cyan star bouncing on a light background",
    "a pink triangle moving left on a dark background",
)


def load(args: argparse.Namespace) -> tuple[WanPipeline, dict[str, Any]]:
    """The pipeline as its generation.json says, and its recommended call with the flags applied."""
    generation = json.loads((args.model / "generation.json").read_text())
    dtype = getattr(torch, generation["dtype"])
    pipe = WanPipeline.from_pretrained(args.model, torch_dtype=dtype).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    call = generation["call"]
    for flag, name in ((args.steps, "num_inference_steps"), (args.guidance, "guidance_scale")):
        if flag is not None:
            call[name] = flag
    if args.shift is not None:
        pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
            pipe.scheduler.config, shift=args.shift
        )
    return pipe, call


def generate(pipe: WanPipeline, prompts: list[str], seeds: range, call: dict[str, Any]) -> Tensor:
    """Videos `[prompts, frames, 3, height, width]` in 0..1; one seed each, whatever the batch."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with torch.no_grad():
        result = pipe(prompt=prompts, generator=generators, output_type="pt", **call)
    return result.frames.float().cpu()


def score(verdicts: list[Verdict], wanted: list[dict[str, int]]) -> dict[str, float]:
    """Shares of right answers for each name, and for all names at once."""
    rows = [right_answers(v, w, NAMES) for v, w in zip(verdicts, wanted, strict=True)]
    count = len(rows)
    result = {name: sum(row[name] for row in rows) / count for name in NAMES}
    result["all"] = sum(all(row.values()) for row in rows) / count
    for name in ("overlap", "steady"):
        result[name] = sum(getattr(v, name) for v in verdicts) / count
    return {name: round(value, 4) for name, value in result.items()}


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """Share of prompts that the judge finds followed; prompt n has the seed FIRST_SEED + n."""
    pipe, call = load(args)
    prompts = [line for line in args.prompts.read_text().splitlines() if line][: args.count]
    wanted = [labels_of(prompt) for prompt in prompts]
    verdicts: list[Verdict] = []
    for first in range(0, len(prompts), args.batch):
        some = prompts[first : first + args.batch]
        seeds = range(FIRST_SEED + first, FIRST_SEED + first + len(some))
        verdicts += [classify(video) for video in generate(pipe, some, seeds, call)]
        print(len(verdicts), score(verdicts, wanted[: len(verdicts)]), flush=True)
    cases = [
        {"prompt": prompt, **asdict(verdict)}
        for prompt, verdict in zip(prompts, verdicts, strict=True)
    ]
    return {"call": call, "prompts": len(prompts), **score(verdicts, wanted), "cases": cases}


def loss(args: argparse.Namespace) -> dict[str, Any]:
    """Flow-matching loss of full clips at fixed clips and noise and evenly spread noise levels."""
    pipe, _ = load(args)
    source = ClipSource(args.model / "vae", args.device)
    total, parts, kind = 0.0, args.count // KINDS["full"].batch, KINDS["full"]
    for part in range(parts):
        clips = source.clips(kind, part)
        text, _ = source.text(clips.captions, torch.zeros(kind.batch, dtype=torch.bool))
        levels = (torch.arange(kind.batch) * parts + part + 0.5) / (kind.batch * parts)
        noise = torch.randn(clips.latents.shape, generator=generator_of(part, 1)).to(args.device)
        with torch.no_grad():
            text, levels = text.to(pipe.transformer.dtype), levels.to(args.device)
            total += flow_loss(pipe.transformer, clips.latents, text, levels, noise).item()
    return {"clips": parts * kind.batch, "flow_matching_loss": round(total / parts, 4)}


def sheet(args: argparse.Namespace) -> dict[str, Any]:
    """A picture of eight videos, one per row, nine frames each."""
    pipe, call = load(args)
    start, rows = time.monotonic(), []
    for seed, prompt in enumerate(SHEET):
        video = generate(pipe, [prompt], range(seed, seed + 1), call)[0]
        rows.append(torch.cat(list(video[::2]), dim=2))
    pixels = (torch.cat(rows, dim=1).clamp(0, 1) * 255).byte().permute(1, 2, 0)
    picture = Image.fromarray(pixels.numpy()).quantize(128, dither=Image.Dither.NONE)
    picture.save(args.output, optimize=True)
    return {"picture": str(args.output), "call": call, "seconds": time.monotonic() - start}


def ceiling(args: argparse.Namespace) -> dict[str, Any]:
    """What the judge finds on rendered clips, and on the same clips after the autoencoder."""
    pipe, _ = load(args)
    generator = generator_of(11)
    labels = draw_labels(args.count, generator)
    clips = render(labels, generator)
    texts = captions_of(labels, torch.ones(args.count, dtype=torch.bool))
    with torch.no_grad():
        vae = pipe.vae.float()
        latents = vae.encode(clips.to(vae.device)).latent_dist.mode()
        decoded = vae.decode(latents).sample.cpu().clamp(-1, 1)
    wanted = [labels_of(text) for text in texts]
    error = ((decoded - clips) / 2).pow(2).mean((1, 2, 3, 4))
    scores = {
        name: score([classify((clip.transpose(0, 1) + 1) / 2) for clip in some], wanted)
        for name, some in (("rendered", clips), ("after_vae", decoded))
    }
    return {**scores, "clips": args.count, "vae_psnr": round(float(-10 * error.log10().mean()), 2)}


COMMANDS = {"accuracy": accuracy, "loss": loss, "sheet": sheet, "ceiling": ceiling}


def main() -> None:
    """Run one measurement and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--model", type=Path, default="samples/models/shapes-wan")
    parser.add_argument("--prompts", type=Path, default="samples/prompts.txt")
    parser.add_argument("--count", type=int, default=48, help="prompts or clips, at most")
    parser.add_argument("--batch", type=int, default=4, help="prompts at a time")
    parser.add_argument("--steps", type=int, help="instead of the recommended steps")
    parser.add_argument("--guidance", type=float, help="instead of the recommended guidance")
    parser.add_argument("--shift", type=float, help="instead of the scheduler's shift")
    parser.add_argument("--output", type=Path, default="samples.png", help="picture of `sheet`")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    result = {"command": args.command, **COMMANDS[args.command](args)}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "cases"}, indent=1))


if __name__ == "__main__":
    main()
