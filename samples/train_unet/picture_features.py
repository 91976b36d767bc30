"""Two small networks that name what they see: one of latents, to train by, one of pixels, to judge by.

Both learn shape, color and background from drawn pictures, anew from their seeds, in a minute; their
last hidden layers are the features. They share no weight and no input, so that a model fine-tuned by
the first is judged by the second.

python samples/train_unet/picture_features.py   # trains both and says how often they are right
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "train")]

from clips import generator_of  # noqa: E402
from pictures import NAMES, draw_pictures  # noqa: E402
from shapes import Labels  # noqa: E402

POOL, STEPS, BATCH, PEAK_RATE, NOISE = 2048, 250, 32, 4e-3, 0.05
FEATURES = 64
# Channels and stride of each convolution, and the first number of the generators' seeds.
LATENTS = (((4, 32, 1), (32, 48, 2), (48, 64, 2), (64, 64, 1)), 31)
PIXELS = (((3, 16, 2), (16, 32, 2), (32, 48, 2), (48, 64, 2)), 32)
HELD_OUT = 33

See = Callable[[Tensor], Tensor]


class FeatureNetwork(nn.Module):
    """Convolutions, then features `[n, FEATURES]` of everything they give; each varies by 1."""

    def __init__(self, layers: tuple[tuple[int, int, int], ...], places: int = 16) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after, stride in layers:
            parts += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False)]
            parts += [nn.BatchNorm2d(after), nn.SiLU()]
        self.seen = nn.Sequential(*parts)
        self.mixture = nn.Linear((places + 1) * layers[-1][1], FEATURES)
        self.scale = nn.BatchNorm1d(FEATURES, affine=False)
        self.readings = nn.ModuleDict(
            {name: nn.Linear(FEATURES, len(choices)) for name, choices in NAMES.items()}
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Features of latents `[n, 4, 16, 16]`, or of pixels `[n, 3, 64, 64]` in -1..1."""
        seen = self.seen(pictures)
        what = torch.cat([seen.amax((2, 3)), seen.flatten(1)], dim=1)
        features: Tensor = self.scale(self.mixture(what))
        return features

    def read(self, features: Tensor) -> Labels:
        """For each label the logits `[n, choices]`."""
        return {name: reading(features) for name, reading in self.readings.items()}


def trained(layers: tuple[tuple[int, int, int], ...], seed: int, see: See) -> FeatureNetwork:
    """The network after STEPS batches of POOL drawn pictures, which `see` turns into its input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FeatureNetwork(layers)
    generator = generator_of(seed)
    labels, pictures = draw_pictures(POOL, generator)
    seen = torch.cat([see(part) for part in pictures.split(BATCH)])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(0, POOL, (BATCH,), generator=generator)
        noise = NOISE * torch.randn(seen[rows].shape, generator=generator)
        logits = network.read(network(seen[rows] + noise))
        loss = sum(functional.cross_entropy(logits[name], labels[name][rows]) for name in NAMES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def latents_of(vae: AutoencoderKL) -> See:
    """What turns pictures into latents."""

    @torch.no_grad()
    def encode(pictures: Tensor) -> Tensor:
        latents: Tensor = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
        return latents

    return encode


def feature_networks(vae: AutoencoderKL, cache: Path) -> dict[str, FeatureNetwork]:
    """The networks of "latents" and "pixels", from `cache` or trained and kept there."""
    networks = {}
    for name, (layers, seed), see in (
        ("latents", LATENTS, latents_of(vae)),
        ("pixels", PIXELS, lambda pictures: pictures),
    ):
        file = cache / f"{name}-features.safetensors"
        if file.exists():
            network = FeatureNetwork(layers)
            network.load_state_dict(load_file(file))
            network.eval().requires_grad_(False)
        else:
            network = trained(layers, seed, see)
            cache.mkdir(parents=True, exist_ok=True)
            save_file(
                {key: value.contiguous() for key, value in network.state_dict().items()}, file
            )
        networks[name] = network
    return networks


@torch.no_grad()
def held_out_accuracy(network: FeatureNetwork, see: See, count: int = 384) -> dict[str, float]:
    """Share of right answers on drawn pictures that the training never draws."""
    labels, pictures = draw_pictures(count, generator_of(HELD_OUT))
    logits = network.read(torch.cat([network(see(part)) for part in pictures.split(BATCH)]))
    return {
        name: round(float((logits[name].argmax(1) == labels[name]).float().mean()), 4)
        for name in NAMES
    }


def main() -> None:
    """Train the networks if they are not there and say how often they are right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("runs/shapes-unet-features"))
    parser.add_argument("--vae", type=Path, default=HERE.parent / "models/shapes-unet/vae")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval()
    networks = feature_networks(vae, args.cache)
    print(f"{time.monotonic() - start:.0f} s; right on held-out pictures:")
    for name, see in (("latents", latents_of(vae)), ("pixels", lambda pictures: pictures)):
        weights = sum(weight.numel() for weight in networks[name].parameters())
        print(f"{name}: {weights:,} weights, {held_out_accuracy(networks[name], see)}")


if __name__ == "__main__":
    main()
