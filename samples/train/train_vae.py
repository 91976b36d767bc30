"""Train the autoencoder of shapes-wan on rendered clips, then measure its latent statistics."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import checkpoint
import torch
import torch.nn.functional as F
from clips import generator_of
from diffusers import AutoencoderKLWan
from loop import train
from muon import Optimizer
from shapes import draw_labels, render
from torch import Tensor

CHANNELS = 6
IMAGE_SHARE = 0.3
KL_WEIGHT = 1e-5
MEASURED_CLIPS = 64
SMALL = {"size": 32, "radius": (6.0, 13.0)}
# Batch, frames and canvas: single images, then three sorts of short clips in turn.
IMAGES = (48, 1, SMALL)
CLIPS = ((12, 5, SMALL), (8, 9, SMALL), (4, 5, {}))


def build_vae(seed: int) -> AutoencoderKLWan:
    """A new autoencoder: 4x smaller in space, 2x in time, 0.46 M parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(
            base_dim=8,
            z_dim=CHANNELS,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * CHANNELS,
            latents_std=[1.0] * CHANNELS,
            scale_factor_spatial=4,
            scale_factor_temporal=2,
        )
    # A quiet posterior from the start: at a standard deviation of 1 the decoder learns to ignore it.
    with torch.no_grad():
        vae.quant_conv.weight[CHANNELS:] = 0
        vae.quant_conv.bias[CHANNELS:] = -5
    return vae


def edges(video: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighboring pixels, down and across."""
    return video[..., 1:, :] - video[..., :-1, :], video[..., 1:] - video[..., :-1]


class VaeTraining:
    """The training of one autoencoder; every random number follows from the seed and the step."""

    def __init__(self, vae: AutoencoderKLWan, *, steps: int, seed: int, device: str):
        self.steps, self.seed, self.device = steps, seed, torch.device(device)
        self.vae = vae.to(self.device).train()
        matrices, others = [], []
        for name, parameter in vae.named_parameters():
            is_kernel = parameter.ndim >= 4 and parameter.shape[0] > 1
            (matrices if is_kernel else others).append((name, parameter))
        self.optimizer = Optimizer(matrices, others, muon_rate=1e-2, adamw_rate=3e-3, decay=0.0)

    def _clips(self, step: int, generator: torch.Generator) -> Tensor:
        # Colors are learned from many single shapes; on clips alone they come out grey for long.
        images = step < IMAGE_SHARE * self.steps
        batch, frames, canvas = IMAGES if images else CLIPS[step % len(CLIPS)]
        labels = draw_labels(batch, generator)
        return render(labels, generator, frames=frames, **canvas).to(self.device)

    def train_step(self, step: int) -> dict[str, float]:
        """One update on freshly drawn clips; gives the absolute error and the divergence."""
        generator = generator_of(self.seed, step)
        video = self._clips(step, generator)
        with torch.autocast(self.device.type, torch.bfloat16):
            posterior = self.vae.encode(video).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
            output = self.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        spread = posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar
        divergence, error = 0.5 * spread.float().mean(), F.l1_loss(output, video)
        outline = sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(video), strict=True))
        # The squared error leads: the absolute error alone settles on the median color for long.
        loss = 3 * F.mse_loss(output, video) + 0.5 * error + 0.1 * outline
        (loss + KL_WEIGHT * divergence).backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        self.optimizer.step(min(1.0, (step + 1) / 20) * falling)
        return {"error": error.item(), "divergence": divergence.item()}

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser state by name."""
        model = {f"model.{name}": p for name, p in self.vae.named_parameters()}
        return {**model, **self.optimizer.tensors()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for name, parameter in self.vae.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        self.optimizer.load(tensors)

    def export(self, folder: Path) -> None:
        """Write the autoencoder to `folder`/vae, with statistics of its latents as they are now."""
        psnr, mean, std = measure(self.vae, MEASURED_CLIPS)
        self.vae.register_to_config(latents_mean=mean, latents_std=std)
        self.vae.save_pretrained(folder / "vae")
        (folder / "quality.json").write_text(json.dumps({"psnr": psnr}) + "\n")


@torch.no_grad()
def measure(vae: AutoencoderKLWan, clips: int, batch: int = 8) -> tuple[float, list, list]:
    """PSNR in dB of reconstructed full clips, and mean and standard deviation per channel."""
    generator = generator_of(10_000)
    errors, latents = [], []
    for _ in range(clips // batch):
        video = render(draw_labels(batch, generator), generator).to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            latents.append(vae.encode(video).latent_dist.mode().float())
            output = vae.decode(latents[-1]).sample.float().clamp(-1, 1)
        errors.append(((output - video) / 2).pow(2).mean(dim=(1, 2, 3, 4)))
    psnr = float(-10 * torch.cat(errors).log10().mean())
    every = torch.cat(latents)
    return psnr, every.mean(dim=(0, 2, 3, 4)).tolist(), every.std(dim=(0, 2, 3, 4)).tolist()


def main() -> int:
    """Start or resume a run; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="folder for the checkpoints of a new run")
    place.add_argument("--resume", type=Path, help="folder of a run to go on with, exactly")
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--save-every", type=float, default=300, metavar="SECONDS")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    info = {"steps": args.steps, "seed": args.seed}
    if args.resume:
        info = {key: checkpoint.info_of(args.resume)[key] for key in info}
    training = VaeTraining(build_vae(info["seed"]), **info, device=args.device)
    folder = args.resume or args.output
    return train(training, folder, info, resume=bool(args.resume), save_every=args.save_every)


if __name__ == "__main__":
    raise SystemExit(main())
