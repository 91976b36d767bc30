"""Doctor on image models, from configs alone: tokens of the published sizes, or why there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pipelines import FAMILIES

from sparsediff.estimate import ModelEstimate, estimate
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles


def estimated(name: str, folder: Path, size: tuple[int, int]) -> ModelEstimate:
    FAMILIES[name].build().save_pretrained(folder)
    return estimate(ModelFiles(name=str(folder)), size=(*size, 1))


@pytest.mark.parametrize(
    ("name", "side", "text"),
    [
        ("flux2", 2, 512),
        ("chroma", 2, 512),
        ("qwen_image", 4, 512),
        ("sd3", 2, 256 + 77),
        ("hidream", 2, 3 * 128),
        ("lumina2", 16, 256),
        ("pixart_sigma", 2, 0),
    ],
)
def test_tokens(name: str, side: int, text: int, tmp_path: Path) -> None:
    """`side`: pixels of a token; text: the pipeline's own longest one."""
    found = estimated(name, tmp_path, (20 * side, 8 * side))
    assert (found.grid, found.text_tokens) == ((1, 8, 20), text)
    assert found.layers == FAMILIES[name].layers


def test_a_unet_has_no_estimate(tmp_path: Path) -> None:
    with pytest.raises(
        SparseError, match="UNet2DConditionModel: its layers see the image at several"
    ):
        estimated("sdxl", tmp_path, (192, 192))
