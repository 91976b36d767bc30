"""The sample that fine-tunes the UNet: captions count in what it minimises."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sparsediff.distill.mmd_loss import mmd_squared

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
sys.path.insert(0, str(SAMPLES / "train_unet"))


def test_captions_are_read_from_their_embeddings() -> None:
    from caption_tokens import encode
    from mmd_unet import one_hot
    from pictures import NAMES, caption

    rows = one_hot(encode([caption(2, 5, 1), caption(0, 7, 0)]))
    start = dict(zip(NAMES, (0, 6, 14), strict=True))
    found = [
        {name: int(row[first : first + len(NAMES[name])].argmax()) for name, first in start.items()}
        for row in rows
    ]
    assert found == [
        {"shape": 2, "color": 5, "background": 1},
        {"shape": 0, "color": 7, "background": 0},
    ]
    assert rows.sum(dim=1).tolist() == [3, 3]


def test_captions_that_changed_places_are_noticed() -> None:
    """The pictures alone are the same; with captions the discrepancy is that of wrong pairs."""
    from mmd_unet import captioned_kernel
    from picture_features import FEATURES

    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(192) % 6
    labels = torch.nn.functional.one_hot(kinds, 16).float() * 3**0.5  # as three labels that agree
    centers = torch.randn(6, FEATURES, generator=generator)

    def pictures() -> torch.Tensor:
        return centers[kinds] + 0.3 * torch.randn(192, FEATURES, generator=generator)

    real = torch.cat([pictures(), labels], dim=1)
    right, wrong = (torch.cat([pictures(), labels.roll(n, 0)], dim=1) for n in (0, 1))
    alone = [float(mmd_squared(x[:, :FEATURES], real[:, :FEATURES])) for x in (right, wrong)]
    pairs = [float(mmd_squared(x, real, captioned_kernel)) for x in (right, wrong)]
    assert max(abs(value) for value in (*alone, pairs[0])) < 0.05 * pairs[1]
