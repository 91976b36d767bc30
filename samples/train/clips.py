"""Training data: latents and text embeddings of clips that are rendered on the fly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from captions import build_text_encoder, build_tokenizer, captions_of, encode
from diffusers import AutoencoderKLWan
from recipe import Kind
from shapes import draw_labels, render
from torch import Tensor

NAME_BACKGROUND = 0.8


def generator_of(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on all the given numbers (seed, step, purpose) and no other."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Normalised latents `[clips, c, frames, h, w]` float32 on the device, and their captions."""

    latents: Tensor
    captions: list[str]


class ClipSource:
    """Renders, captions and encodes clips with a frozen autoencoder."""

    def __init__(self, vae_folder: Path, device: str):
        self.device = torch.device(device)
        self.vae = AutoencoderKLWan.from_pretrained(vae_folder).eval().requires_grad_(False)
        self.vae.to(self.device)
        statistics = (self.vae.config.latents_mean, self.vae.config.latents_std)
        self.mean, self.std = (
            torch.tensor(values, device=self.device)[None, :, None, None, None]
            for values in statistics
        )
        self.tokenizer, self.text_encoder = build_tokenizer(), build_text_encoder()
        self._kept: tuple[tuple[Kind, int], Clips] | None = None

    @torch.no_grad()
    def clips(self, kind: Kind, seed: int) -> Clips:
        """Clips of one kind; the same seed gives the same ones. The last result is kept."""
        if self._kept is None or self._kept[0] != (kind, seed):
            self._kept = (kind, seed), self._draw(kind, generator_of(seed))
        return self._kept[1]

    def _draw(self, kind: Kind, generator: torch.Generator) -> Clips:
        labels = draw_labels(kind.batch, generator)
        named = torch.rand(kind.batch, generator=generator) < NAME_BACKGROUND
        video = render(labels, generator, frames=2 * kind.frames - 1)
        if kind.half:
            video = torch.nn.functional.avg_pool3d(video, (1, 2, 2))
        with torch.autocast(self.device.type, torch.bfloat16):
            latents = self.vae.encode(video.to(self.device)).latent_dist.mode().float()
        return Clips((latents - self.mean) / self.std, captions_of(labels, named))

    def text(self, captions: list[str], dropped: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings on the device and token counts; `dropped` (bool) captions become empty."""
        kept = ["" if drop else c for c, drop in zip(captions, dropped.tolist(), strict=True)]
        hidden, counts = encode(self.tokenizer, self.text_encoder, kept)
        return hidden.to(self.device), counts
