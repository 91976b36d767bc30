"""Fine-tune shapes-unet for four steps without guidance, by maximum mean discrepancy to real pictures.

Generated latents and latents of drawn pictures are compared, together with their captions, by a small
network of latents; another network, of pixels, and the judge tell whether it helped.

    python samples/mmd_unet.py --output runs/shapes-unet-mmd
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from torch import Tensor

import sparsediff
from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.mmd_loss import mmd_squared, polynomial_kernel
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.sample_chain import sample_chain
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.objective import Samples, Update
from sparsediff.distill.training.roles import Role
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "train_unet"), str(HERE / "train")]

from caption_tokens import encode  # noqa: E402
from clips import generator_of  # noqa: E402
from evaluate_unet import generate, score  # noqa: E402
from picture_features import FEATURES, FeatureNetwork, feature_networks  # noqa: E402
from pictures import NAMES, draw_pictures, every_caption, labels_of  # noqa: E402
from train_unet import PHASES, encoded_pictures  # noqa: E402

MODEL = HERE / "models/shapes-unet"
STEPS = 4


def one_hot(text: Tensor) -> Tensor:
    """Labels of captions by their embeddings `[n, tokens, dim]`, a one for each: `[n, 16]`."""
    captions = every_caption()
    known = encode(captions).flatten(1)
    nearest = torch.cdist(text.float().flatten(1), known).argmin(dim=1)
    rows = [labels_of(captions[number]) for number in nearest.tolist()]
    parts = [
        torch.nn.functional.one_hot(torch.tensor([row[name] for row in rows]), len(choices))
        for name, choices in NAMES.items()
    ]
    return torch.cat(parts, dim=1).float()


def captioned_kernel(x: Tensor, y: Tensor) -> Tensor:
    """The kernel of pictures times the share of labels in common: pictures must fit their captions.

    A discrepancy of the pictures alone would not notice captions that changed places.
    """
    pictures = polynomial_kernel(x[:, :FEATURES], y[:, :FEATURES])
    return pictures * (x[:, FEATURES:] @ y[:, FEATURES:].mT) / len(NAMES)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FromNoise:
    """Starting noise of a micro-batch, what its prompts say, and real features with captions."""

    x: Tensor
    conditions: Conditions
    captions: Tensor
    real: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CaptionedMmd:
    """MMD-DDM's objective on pairs of picture and caption; ``real`` ``[n, FEATURES + 16]``."""

    setup: Setup
    settings: DistillSettings
    network: FeatureNetwork
    real: Tensor

    @property
    def learners(self) -> Sequence[Role]:
        """The student alone."""
        return ("student",)

    def prepare(self, samples: Samples) -> FromNoise:
        """Noise, captions and as many real pairs, all drawn for these samples."""
        draws = Draws([seed_of(self.settings.seed, "sample", n) for n in samples.numbers])
        conditions = samples.conditions
        x = draws.normal(torch.empty(len(samples.numbers), *self.setup.inputs.shape))
        return FromNoise(
            x=x,
            conditions=conditions,
            captions=one_hot(conditions.positive["encoder_hidden_states"]),
            real=self.real[(draws.uniform() * len(self.real)).long()],
        )

    def updates(self) -> Sequence[Update]:
        """The student, once."""
        return [("student", self._loss)]

    def _loss(self, part: FromNoise) -> Tensor:
        student = Actors(setup=self.setup, conditions=part.conditions).student()
        latents = sample_chain(student, self.setup.levels, self.setup.grid, part.x)
        pairs = torch.cat([self.network(latents), part.captions], dim=1)
        return mmd_squared(pairs, part.real, captioned_kernel).float()


@torch.no_grad()
def measure(
    pipe: StableDiffusionPipeline, judge: FeatureNetwork, call: dict[str, Any]
) -> dict[str, Any]:
    """What the judge finds on the 96 prompts, and MMD² to 1024 drawn pictures by the pixel network."""
    prompts = every_caption()
    start = time.monotonic()
    pictures = generate(pipe, prompts, call, batch=24)
    seconds = time.monotonic() - start
    _, real = draw_pictures(1024, generator_of(41))
    seen = torch.cat([judge(part) for part in real.split(64)])
    verdict = score(pictures, prompts)
    return {
        **{name: verdict[name] for name in (*NAMES, "all", "overlap")},
        "mmd_squared": round(float(mmd_squared(judge(2 * pictures - 1), seen)), 4),
        "seconds_each": round(seconds / len(prompts), 3),
    }


def train(pipe: StableDiffusionPipeline, network: FeatureNetwork, args: argparse.Namespace) -> None:
    """Fine-tune all weights of the UNet into the student at `args.output`."""
    drawn = encoded_pictures(pipe.vae, replace(PHASES[-1], pictures=1024), seed=args.seed + 42)
    named = encode(every_caption()).flatten(1)
    # Captions without a background are no pair that the student is asked for.
    whole = torch.cdist(drawn.text.flatten(1), named).amin(dim=1) < 1e-3
    with torch.no_grad():
        seen = torch.cat([network(part) for part in drawn.latents[whole].split(64)])
    real = torch.cat([seen, one_hot(drawn.text[whole])], dim=1)
    settings = DistillSettings(
        steps=STEPS,
        guidance=1.0,
        objective="mmd",
        iterations=args.iterations,
        batch=args.batch,
        learning_rate=args.learning_rate,
        lora_rank=0,
        average=0.9,
        checkpoint_every=0,
        seed=args.seed,
    )
    distillation = Distillation(
        pipe,
        every_caption(),
        settings,
        Accelerator(cpu=True),
        args.output,
        objective=lambda setup: CaptionedMmd(
            setup=setup, settings=settings, network=network, real=real
        ),
        tell=lambda figures, seconds: print(
            f"{figures.iteration:4d}  loss {figures.losses['student']:.4f}  {seconds:.0f} s",
            flush=True,
        ),
    )
    distillation.run()
    distillation.save(model="samples/models/shapes-unet", command="python samples/mmd_unet.py")


def main() -> None:
    """Measure, fine-tune, measure again; one JSON line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--output", type=Path, required=True, help="folder for the student")
    parser.add_argument("--cache", type=Path, default=Path("runs/shapes-unet-features"))
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    networks = feature_networks(pipe.vae, args.cache)
    call = json.loads((args.model / "generation.json").read_text())["call"]

    def tell(name: str, pipe: StableDiffusionPipeline, **changes: Any) -> None:
        found = measure(pipe, networks["pixels"], {**call, **changes})
        print(json.dumps({"sampler": name, **found}), flush=True)

    few = copy.copy(pipe)
    few.scheduler = student_scheduler(pipe.scheduler, STEPS, None)
    tell("teacher, recommended call", pipe)
    tell(f"teacher, {STEPS} steps", few, num_inference_steps=STEPS)
    free = {"num_inference_steps": STEPS, "guidance_scale": 1.0}
    tell(f"teacher, {STEPS} steps, no guidance", few, **free)
    train(few, networks["latents"], args)
    sparsediff.load_student(pipe, args.output)
    tell(f"student, {STEPS} steps, no guidance", pipe, **free)


if __name__ == "__main__":
    main()
