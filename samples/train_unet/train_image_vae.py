"""Train the autoencoder of shapes-unet on rendered images; its latents end with mean 0 and deviation 1.

python samples/train_unet/train_image_vae.py --output runs/shapes-unet-vae
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]

import checkpoint  # noqa: E402
from clips import generator_of  # noqa: E402
from loop import train  # noqa: E402
from muon import Optimizer  # noqa: E402
from pictures import draw_pictures  # noqa: E402

CHANNELS = 4
SMALL_SHARE = 0.75
KL_WEIGHT = 1e-5
MEASURED_PICTURES = 256
# Batch and canvas: most steps on small canvases, the last ones on the size that is used.
SMALL, FULL = (16, {"size": 32, "radius": (6.0, 13.0)}), (6, {})


def build_vae(seed: int) -> AutoencoderKL:
    """A new autoencoder: 4x smaller, 4 channels, 0.23 M parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            latent_channels=CHANNELS,
            block_out_channels=(16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=8,
            mid_block_add_attention=False,
            sample_size=64,
            scaling_factor=1.0,
        )
    # A quiet posterior from the start: at a standard deviation of 1 the decoder learns to ignore it.
    with torch.no_grad():
        vae.quant_conv.weight[CHANNELS:] = 0
        vae.quant_conv.bias[CHANNELS:] = -5
    return vae


class VaeTraining:
    """The training of one autoencoder; every random number follows from the seed and the step."""

    def __init__(self, vae: AutoencoderKL, *, steps: int, seed: int):
        self.steps, self.seed, self.vae = steps, seed, vae.train()
        matrices, others = [], []
        for name, parameter in vae.named_parameters():
            is_kernel = parameter.ndim == 4 and parameter.shape[0] > CHANNELS
            (matrices if is_kernel else others).append((name, parameter))
        self.optimizer = Optimizer(matrices, others, muon_rate=1e-2, adamw_rate=3e-3, decay=0.0)

    def train_step(self, step: int) -> dict[str, float]:
        """One update on freshly drawn pictures; gives the absolute error and the divergence."""
        generator = generator_of(self.seed, step)
        batch, canvas = SMALL if step < SMALL_SHARE * self.steps else FULL
        _, pictures = draw_pictures(batch, generator, **canvas)
        posterior = self.vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        output = self.vae.decode(posterior.mean + posterior.std * noise).sample
        spread = posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar
        divergence, error = 0.5 * spread.mean(), F.l1_loss(output, pictures)
        outline = sum(F.l1_loss(output.diff(dim=d), pictures.diff(dim=d)) for d in (2, 3))
        # The squared error leads: the absolute error alone settles on the median color for long.
        loss = 3 * F.mse_loss(output, pictures) + 0.5 * error + 0.1 * outline
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
        """Write the autoencoder with normalised latents to `folder`/vae, and its quality."""
        vae = copy.deepcopy(self.vae)
        normalise(vae, *statistics(vae, MEASURED_PICTURES)[1:])
        psnr, mean, std = statistics(vae, MEASURED_PICTURES)
        vae.save_pretrained(folder / "vae")
        quality = {"psnr": psnr, "mean": mean.tolist(), "std": std.tolist()}
        (folder / "quality.json").write_text(json.dumps(quality) + "\n")


@torch.no_grad()
def statistics(vae: AutoencoderKL, count: int, batch: int = 32) -> tuple[float, Tensor, Tensor]:
    """PSNR in dB of reconstructed pictures, and mean and standard deviation `[channels]`."""
    generator = generator_of(10_000)
    errors, latents = [], []
    for _ in range(count // batch):
        _, pictures = draw_pictures(batch, generator)
        latents.append(vae.encode(pictures).latent_dist.mode())
        output = vae.decode(latents[-1]).sample.clamp(-1, 1)
        errors.append(((output - pictures) / 2).pow(2).mean(dim=(1, 2, 3)))
    psnr = float(-10 * torch.cat(errors).log10().mean())
    every = torch.cat(latents)
    return psnr, every.mean(dim=(0, 2, 3)), every.std(dim=(0, 2, 3))


@torch.no_grad()
def normalise(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Fold the statistics into the 1 x 1 convolutions around the latents; reconstruction stays.

    Stable Diffusion has one scaling factor and no shift: this way neither is needed.
    """
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:CHANNELS] /= std[:, None, None, None]
    before.bias[:CHANNELS] = (before.bias[:CHANNELS] - mean) / std
    before.bias[CHANNELS:] -= 2 * std.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= std[None, :, None, None]


def main() -> int:
    """Start or resume a run; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="folder for the checkpoints of a new run")
    place.add_argument("--resume", type=Path, help="folder of a run to go on with, exactly")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-every", type=float, default=300, metavar="SECONDS")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    info = {"steps": args.steps, "seed": args.seed}
    if args.resume:
        info = {key: checkpoint.info_of(args.resume)[key] for key in info}
    training = VaeTraining(build_vae(info["seed"]), **info)
    folder = args.resume or args.output
    return train(training, folder, info, resume=bool(args.resume), save_every=args.save_every)


if __name__ == "__main__":
    raise SystemExit(main())
