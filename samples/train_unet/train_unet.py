"""Train the UNet of shapes-unet on the latents of rendered pictures, by v-prediction.

python samples/train_unet/train_unet.py --vae runs/shapes-unet-vae/step-*/vae --output runs/shapes-unet
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]

import checkpoint  # noqa: E402
from caption_tokens import TEXT_DIM, encode  # noqa: E402
from clips import generator_of  # noqa: E402
from loop import train  # noqa: E402
from muon import Optimizer  # noqa: E402
from pictures import captions_of, draw_pictures  # noqa: E402

NAME_BACKGROUND, DROP_CAPTION = 0.8, 0.1
WARM_UP, AVERAGE = 30, 0.99
RATES = {"muon_rate": 2e-3, "adamw_rate": 1.5e-3, "decay": 0.01}


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A part of the training: its share of the steps, the side of its canvas in pixels, how many
    pictures are drawn for it, and how many of them a step takes."""

    share: float
    size: int
    pictures: int
    batch: int


# A shape as large as on the final canvas almost fills the small one, which costs a quarter.
PHASES = (
    Phase(share=0.65, size=32, pictures=8192, batch=32),
    Phase(share=0.35, size=64, pictures=4096, batch=32),
)


def build_unet(seed: int) -> UNet2DConditionModel:
    """A new UNet of 2.8 M parameters: attention on all three levels, every head 16 wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 64, 96),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            attention_head_dim=(2, 4, 6),  # the number of heads, whatever its name
            cross_attention_dim=TEXT_DIM,
            norm_num_groups=16,
        )


def build_scheduler() -> DDIMScheduler:
    """Cosine noise schedule, velocity prediction, steps counted from pure noise."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


@dataclass(frozen=True, slots=True, eq=False)
class LatentPictures:
    """Latents `[n, 4, h, w]` and text embeddings `[n, tokens, dim]` of drawn pictures, float32."""

    latents: Tensor
    text: Tensor


@torch.no_grad()
def encoded_pictures(vae: AutoencoderKL, phase: Phase, seed: int) -> LatentPictures:
    """The pictures of a phase; they follow from the seed."""
    generator = generator_of(seed, phase.size)
    latents, captions = [], list[str]()
    while len(captions) < phase.pictures:
        count = min(256, phase.pictures - len(captions))
        labels, pictures = draw_pictures(count, generator, size=phase.size)
        latents.append(vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor)
        captions += captions_of(labels, torch.rand(count, generator=generator) < NAME_BACKGROUND)
    different = sorted(set(captions))
    place = {caption: number for number, caption in enumerate(different)}
    numbers = torch.tensor([place[caption] for caption in captions])
    return LatentPictures(torch.cat(latents), encode(different)[numbers])


def velocity_loss(
    unet: torch.nn.Module,
    scheduler: DDIMScheduler,
    clean: LatentPictures,
    times: Tensor,
    noise: Tensor,
) -> Tensor:
    """Mean squared error of the predicted velocity at the time steps `[n]` int64."""
    mixed = scheduler.add_noise(clean.latents, noise, times)
    velocity = unet(mixed, times, clean.text, return_dict=False)[0]
    return F.mse_loss(velocity, scheduler.get_velocity(clean.latents, noise, times))


class UNetTraining:
    """The training of one UNet; every random number follows from the seed and the step."""

    def __init__(self, unet: UNet2DConditionModel, vae: AutoencoderKL, *, steps: int, seed: int):
        self.unet, self.vae, self.steps, self.seed = unet.train(), vae, steps, seed
        self.average = copy.deepcopy(unet).requires_grad_(False)
        self.scheduler, self.empty = build_scheduler(), encode([""])
        matrices, others = [], []
        for name, parameter in unet.named_parameters():
            inner = parameter.ndim > 1 and not name.startswith(("conv_in", "conv_out"))
            (matrices if inner else others).append((name, parameter))
        self.optimizer = Optimizer(matrices, others, **RATES, dtype=torch.float32)
        self._kept: tuple[Phase, LatentPictures] | None = None

    def _phase_at(self, step: int) -> Phase:
        done = (step + 0.5) / self.steps
        return PHASES[0] if done < PHASES[0].share else PHASES[1]

    def _pictures(self, phase: Phase) -> LatentPictures:
        if self._kept is None or self._kept[0] != phase:
            self._kept = phase, encoded_pictures(self.vae, phase, self.seed)
        return self._kept[1]

    def train_step(self, step: int) -> dict[str, float]:
        """One update; gives the loss by canvas."""
        phase, generator = self._phase_at(step), generator_of(self.seed, step, 0)
        pictures = self._pictures(phase)
        rows = torch.randint(0, phase.pictures, (phase.batch,), generator=generator)
        dropped = torch.rand(phase.batch, 1, 1, generator=generator) < DROP_CAPTION
        text = torch.where(dropped, self.empty, pictures.text[rows])
        # One noise level from each equal share of them.
        place = torch.arange(phase.batch) + torch.rand(phase.batch, generator=generator)
        times = (place * 1000 / phase.batch).long()
        batch = LatentPictures(pictures.latents[rows], text)
        noise = torch.randn(batch.latents.shape, generator=generator)
        loss = velocity_loss(self.unet, self.scheduler, batch, times, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        self.optimizer.step(min(1.0, (step + 1) / WARM_UP) * falling)
        weight = min(AVERAGE, (2 + step) / (11 + step))
        with torch.no_grad():
            pair = list(self.average.parameters()), list(self.unet.parameters())
            torch._foreach_lerp_(*pair, 1 - weight)
        return {f"canvas {phase.size}": loss.item()}

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged weights and optimiser state by name."""
        model = {f"model.{name}": p for name, p in self.unet.named_parameters()}
        average = {f"average.{name}": p for name, p in self.average.named_parameters()}
        return {**model, **average, **self.optimizer.tensors()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for part, model in (("model", self.unet), ("average", self.average)):
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[f"{part}.{name}"])
        self.optimizer.load(tensors)

    def export(self, folder: Path) -> None:
        """Write the averaged weights, float32, to `folder`/unet."""
        self.average.save_pretrained(folder / "unet")


def main() -> int:
    """Start or resume a run; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="folder for the checkpoints of a new run")
    place.add_argument("--resume", type=Path, help="folder of a run to go on with, exactly")
    parser.add_argument("--vae", type=Path, default="samples/models/shapes-unet/vae")
    parser.add_argument("--steps", type=int, help="default 800; with --resume, a new end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-every", type=float, default=300, metavar="SECONDS")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    info = {"steps": args.steps or 800, "seed": args.seed, "vae": str(args.vae)}
    if args.resume:
        info = {key: checkpoint.info_of(args.resume)[key] for key in info}
        info["steps"] = args.steps or info["steps"]
    vae = AutoencoderKL.from_pretrained(info["vae"]).eval().requires_grad_(False)
    training = UNetTraining(build_unet(info["seed"]), vae, steps=info["steps"], seed=info["seed"])
    print(f"{sum(p.numel() for p in training.unet.parameters()) / 1e6:.2f} M parameters")
    folder = args.resume or args.output
    return train(training, folder, info, resume=bool(args.resume), save_every=args.save_every)


if __name__ == "__main__":
    raise SystemExit(main())
