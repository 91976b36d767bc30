"""Features of videos: a small network that only ever saw rendered clips, trained anew from its seed.

It learns to name shape, color, motion and background. Nothing in the distillation uses it, so that
distances between its features judge teacher and students alike.

    python samples/tables/distill_features.py   # trains, says how often it is right, keeps the weights
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
sys.path.insert(
    0, str(HERE.parent / "train")
)  # also where Python is told not to look beside a script

from clips import generator_of  # noqa: E402
from shapes import CHOICES, Labels, draw_labels, render  # noqa: E402

CACHE = Path("runs/distill/features.safetensors")
STEPS, BATCH, PEAK_RATE, NOISE = 200, 32, 4e-3, 0.02
LAYERS = ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1))  # channels in and out, stride
WIDTH, PLACES, FEATURES = 64, 4, 64
FRAMES, GRID = 9, 8  # of 17 frames every second is seen, and as 8 x 8 places after the strides
TRAINING, HELD_OUT = 21, 22  # the first numbers of the generators' seeds


class FeatureNetwork(nn.Module):
    """Convolutions over frames; what is seen, how it changes and where it goes become features."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in LAYERS:
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.frames = nn.Sequential(*layers)
        self.places = nn.Conv2d(WIDTH, PLACES, 1)
        self.mixture = nn.Linear(2 * WIDTH + 2 * PLACES * FRAMES, FEATURES)
        # Without a scale of its own every feature varies by 1 over rendered clips.
        self.scale = nn.BatchNorm1d(FEATURES, affine=False)
        self.readings = nn.ModuleDict({name: nn.Linear(FEATURES, n) for name, n in CHOICES.items()})

    def forward(self, clips: Tensor) -> Tensor:
        """Features `[clips, FEATURES]` of clips `[clips, 3, 17, 64, 64]` in -1..1."""
        seen = self.frames(clips[:, :, ::2].transpose(1, 2).flatten(0, 1).contiguous())
        what = seen.amax((2, 3)).unflatten(0, (-1, FRAMES))
        weight = self.places(seen).flatten(2).softmax(-1).unflatten(2, (GRID, GRID))
        axis = torch.linspace(-1, 1, GRID)
        where = torch.cat([(weight.sum(side) * axis).sum(-1) for side in (2, 3)], dim=1)
        where = where.unflatten(0, (-1, FRAMES)).flatten(1)
        features: Tensor = self.scale(
            self.mixture(torch.cat([what.mean(1), what.std(1), where], 1))
        )
        return features

    def read(self, features: Tensor) -> Labels:
        """For each label the logits `[clips, choices]`."""
        return {name: reading(features) for name, reading in self.readings.items()}


def trained(steps: int = STEPS, batch: int = BATCH) -> FeatureNetwork:
    """The network after `steps` batches of rendered clips; every call makes the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TRAINING)
        network = FeatureNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for step in range(steps):
        generator = generator_of(TRAINING, step)
        labels = draw_labels(batch, generator)
        clips = render(labels, generator)
        clips += NOISE * torch.randn(clips.shape, generator=generator)
        logits = network.read(network(clips))
        loss = sum(functional.cross_entropy(logits[name], labels[name]) for name in labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def held_out_accuracy(network: FeatureNetwork, count: int = 192) -> dict[str, float]:
    """Share of right answers on rendered clips that the training never draws."""
    generator = generator_of(HELD_OUT)
    labels = draw_labels(count, generator)
    logits = network.read(torch.cat([network(c) for c in render(labels, generator).split(BATCH)]))
    return {
        name: round(float((logits[name].argmax(1) == labels[name]).float().mean()), 4)
        for name in labels
    }


@torch.no_grad()
def features_of(network: FeatureNetwork, videos: Tensor) -> Tensor:
    """Features float32 `[videos, FEATURES]` of uint8 videos `[videos, 17, 3, 64, 64]`."""
    parts = [part.transpose(1, 2).float() / 127.5 - 1 for part in videos.split(BATCH)]
    return torch.cat([network(part) for part in parts])


def feature_network(cache: Path = CACHE) -> FeatureNetwork:
    """The trained network, from `cache` if it is there; else it is trained and kept there."""
    if cache.exists():
        network = FeatureNetwork()
        network.load_state_dict(load_file(cache))
        return network.eval().requires_grad_(False)
    network = trained()
    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, cache)
    return network


def main() -> None:
    """Train the network if it is not there and say how often it is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    network = feature_network(args.cache)
    weights = sum(weight.numel() for weight in network.parameters())
    print(f"{weights:,} weights, {time.monotonic() - start:.0f} s; right on held-out clips:")
    print(held_out_accuracy(network))


if __name__ == "__main__":
    main()
