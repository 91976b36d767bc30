"""Where image models keep their tokens: at two sizes, squares and others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seen_layouts import image, watch_grids
from tiny_pipelines import FAMILIES
from tiny_pipelines.parts import picture
from tiny_pipelines.qwen_image import qwen_image_edit_plus

import sparsediff
from sparsediff.search import TokenGrid

# A family's name, arguments of the call (width and height in pixels), and the grids of its calls.
CASES: list[tuple[str, dict[str, Any], set[TokenGrid]]] = [
    ("flux", {"width": 24, "height": 24}, {image(12, 12, before=16)}),
    ("flux", {"width": 40, "height": 16}, {image(8, 20, before=16)}),
    ("flux2", {"width": 24, "height": 24}, {image(12, 12, before=16)}),
    ("flux2", {"width": 40, "height": 16}, {image(8, 20, before=16)}),
    (
        "flux2",
        {"width": 40, "height": 16, "image": picture(64, 80)},
        {image(8, 20, before=16, after=40 * 32)},
    ),
    ("chroma", {"width": 24, "height": 24}, {image(12, 12, before=16)}),
    ("chroma", {"width": 40, "height": 16}, {image(8, 20, before=16)}),
    ("flux_kontext", {"width": 24, "height": 24}, {image(12, 12, before=16, after=8 * 4)}),
    (
        "flux_kontext",
        {"width": 40, "height": 16, "max_area": 40 * 16, "image": picture(8, 24)},
        {image(8, 20, before=16, after=4 * 12)},
    ),
    ("qwen_image", {"width": 48, "height": 48}, {image(12, 12, before=n) for n in (12, 6)}),
    ("qwen_image", {"width": 80, "height": 32}, {image(8, 20, before=n) for n in (12, 6)}),
    # The first block's second attention is to the image alone.
    ("sd3", {"width": 24, "height": 24}, {image(12, 12), image(12, 12, after=32)}),
    ("sd3", {"width": 40, "height": 16}, {image(8, 20), image(8, 20, after=32)}),
    # Lumina 2 drops the padding of its texts, and refines the image alone first.
    ("lumina2", {"width": 192, "height": 192}, {image(12, 12, before=n) for n in (0, 32, 6)}),
    ("lumina2", {"width": 320, "height": 128}, {image(8, 20, before=n) for n in (0, 32, 6)}),
    # HiDream fills up an image that is no square to the largest number of tokens, here 256.
    ("hidream", {"width": 24, "height": 24}, {image(12, 12, after=48)}),
    ("hidream", {"width": 36, "height": 16}, {image(8, 18, after=256 - 8 * 18 + 48)}),
    ("auraflow", {"width": 24, "height": 24}, {image(12, 12, before=8 + 16)}),
    ("auraflow", {"width": 40, "height": 16}, {image(8, 20, before=8 + 16)}),
    ("cogview4", {"width": 192, "height": 192}, {image(12, 12, before=16)}),
    ("cogview4", {"width": 320, "height": 128}, {image(8, 20, before=16)}),
    ("pixart_sigma", {"width": 24, "height": 24}, {image(12, 12)}),
    ("pixart_sigma", {"width": 40, "height": 16}, {image(8, 20)}),
    ("pixart_alpha", {"width": 40, "height": 16}, {image(8, 20)}),
    ("sdxl", {"width": 192, "height": 192}, {image(12, 12)}),
    ("sdxl", {"width": 320, "height": 144}, {image(9, 20)}),
    ("sdxl", {"width": 216, "height": 120}, {image(8, 14)}),  # halved with rounding up
    ("stable_diffusion", {"width": 128, "height": 128}, {image(16, 16), image(8, 8)}),
    ("stable_diffusion", {"width": 200, "height": 72}, {image(9, 25), image(5, 13)}),
    ("animatediff", {"width": 200, "height": 72}, {image(9, 25), image(5, 13)}),
]


# Sets have no order, and so no name that two processes agree on.
@pytest.mark.parametrize(
    ("name", "call", "expected"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_grids(
    name: str, call: dict[str, Any], expected: set[TokenGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES[name]
    pipe = family.build()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=2, **call)
    assert seen == expected
    report = session.report()
    assert report.fallbacks == {}
    assert report.sparse_calls == family.calls(2)


def test_layers_of_a_picture_are_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen-Image-Layered: the picture and its two layers, then the picture that is taken apart."""
    model = qwen_image_edit_plus(use_layer3d_rope=True).transformer
    sparsediff.enable_sparse_attention(model, "window", density=0.3, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    tokens = 3 * 6 * 8 + 4 * 4
    model(
        hidden_states=torch.zeros(1, tokens, 16),
        encoder_hidden_states=torch.zeros(1, 16, 16),
        timestep=torch.ones(1),
        img_shapes=[[(1, 6, 8)] * 3 + [(1, 4, 4)]],
    )
    expected = TokenGrid(frames=3, height=6, width=8, text_before=16, text_after=16)
    assert seen == {expected}
    assert sparsediff.sparse_attention_report(model).sparse_calls == 2
