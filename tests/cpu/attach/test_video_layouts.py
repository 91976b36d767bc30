"""Where video models keep tokens: grids at sizes that are no squares, text, conditions, history."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seen_layouts import always_computed, watch_grids
from tiny_pipelines import FAMILIES
from tiny_pipelines.ltx import frame_at
from tiny_pipelines.parts import picture

from sparsediff.coordinates import last_video
from sparsediff.search import TokenGrid

STEPS = 2  # Mochi's schedule cannot be shorter


def video(frames: int, height: int, width: int, before: int = 0, after: int = 0) -> TokenGrid:
    return TokenGrid(
        frames=frames, height=height, width=width, text_before=before, text_after=after
    )


def size(width: int, height: int, **more: Any) -> dict[str, Any]:
    return {"width": width, "height": height} | more


SQUARE, OBLONG = size(64, 64, num_frames=9), size(80, 48, num_frames=13)
OF_WAN = [(SQUARE, {video(3, 4, 4)}), (OBLONG, {video(4, 3, 5)})]
OF_COGVIDEOX = [(SQUARE, {video(3, 4, 4, before=16)}), (OBLONG, {video(4, 3, 5, before=16)})]
# The prompt has 12 letters and the negative one 6; encoders may add an end, FramePack 4 of a picture.
LETTERS = 12, 6

# A family's calls (width and height in pixels), and the grids that they find.
CASES: dict[str, list[tuple[dict[str, Any], set[TokenGrid]]]] = {
    "wan": OF_WAN,
    "wan_i2v": OF_WAN,
    "wan_ti2v": OF_WAN,
    "wan_vace": [  # reference pictures are frames of the video, which the model cannot tell apart
        *OF_WAN,
        (SQUARE | {"reference_images": picture(64, 64)}, {video(4, 4, 4)}),
    ],
    "wan_animate": [
        (size(64, 64), {video(3, 4, 4, before=16)}),
        (
            size(
                80,
                48,
                segment_frame_length=13,
                pose_video=[picture(80, 48)] * 13,
                face_video=[picture(16, 16)] * 13,
            ),
            {video(4, 3, 5, before=15)},
        ),
    ],
    "skyreels": OF_WAN,
    "skyreels_forcing": OF_WAN,
    "hunyuan_video": [
        (SQUARE, {video(3, 8, 8, after=16)}),
        (OBLONG, {video(4, 6, 10, after=16)}),
    ],
    "hunyuan_video15": [
        (size(16, 16, num_frames=7), {video(4, 4, 4, after=33)}),
        (size(20, 12, num_frames=5), {video(3, 3, 5, after=33)}),
    ],
    "framepack": [
        (SQUARE, {video(9, 4, 4, before=32 + 4 + 4, after=4 + LETTERS[0])}),
        (
            OBLONG | {"latent_window_size": 5, "negative_prompt": "blurry"},
            {video(5, 3, 5, before=30 + 6 + 8, after=4 + letters) for letters in LETTERS},
        ),
    ],
    "mochi": [
        (size(64, 64, num_frames=13), {video(3, 4, 4, after=n + 1) for n in LETTERS}),
        (size(80, 48, num_frames=19), {video(4, 3, 5, after=n + 1) for n in LETTERS}),
    ],
    "cosmos": [
        (size(32, 32, num_frames=9), {video(3, 4, 4)}),
        (size(48, 32, num_frames=13), {video(4, 4, 6)}),
    ],
    "cosmos2": OF_WAN,
    "cosmos25": OF_WAN,
    "allegro": [
        (size(64, 64, num_frames=12), {video(3, 4, 4)}),
        (size(80, 48, num_frames=13), {video(4, 3, 5)}),
    ],
    "easyanimate": [
        (size(240, 240, num_frames=9), {video(3, 15, 15, before=256)}),
        (size(80, 48, num_frames=13), {video(4, 3, 5, before=256)}),
    ],
    "kandinsky5": OF_WAN,
    "latte": [(size(16, 16), {video(1, 8, 8)}), (size(24, 16), {video(1, 8, 12)})],
    "ltx": [
        (size(32, 32, num_frames=9), {video(3, 8, 8)}),
        (size(96, 32, num_frames=5), {video(2, 8, 24)}),
    ],
    "ltx_condition": [
        (size(32, 32, num_frames=9), {video(3, 8, 8, before=64)}),
        (
            size(96, 32, num_frames=13, conditions=[frame_at(4), frame_at(8)]),
            {video(4, 8, 24, before=2 * 8 * 24)},
        ),
        (size(32, 32, num_frames=9, conditions=[frame_at(0)]), {video(3, 8, 8)}),
    ],
    "ltx2": [
        (size(32, 32, num_frames=5), {video(3, 4, 4)}),
        (size(96, 32, num_frames=7), {video(4, 4, 12)}),
    ],
    "ltx2_condition": [
        (size(32, 32, num_frames=5), {video(3, 4, 4, after=16)}),
        (size(96, 32, num_frames=7), {video(4, 4, 12, after=48)}),
    ],
    "cogvideox": OF_COGVIDEOX,
    "cogvideox15": [  # latent frames in pairs; an odd one is completed
        (SQUARE, {video(2, 4, 4, before=16)}),
        (size(64, 48, num_frames=13), {video(2, 3, 4, before=16)}),
    ],
    "cogvideox_i2v": OF_COGVIDEOX,
    "chronoedit": OF_WAN,
    "hunyuan_i2v": [
        (SQUARE, {video(3, 8, 8, after=16)}),
        (OBLONG, {video(4, 6, 10, after=16)}),
    ],
}
FLAT = [(name, call, grids) for name, cases in CASES.items() for call, grids in cases]


@pytest.mark.parametrize(
    ("name", "call", "expected"), FLAT, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(FLAT)]
)
def test_grids(
    name: str, call: dict[str, Any], expected: set[TokenGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES[name]
    pipe = family.build()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=STEPS, **call)
    assert seen == expected
    report = session.report()
    assert report.fallbacks == {}
    assert report.sparse_calls == family.calls(STEPS)


BESIDE = [name for name, cases in CASES.items() if any(grid.text_tokens for grid in cases[0][1])]


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_beside_the_video_is_always_computed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES[name]
    pipe = family.build()
    session = pipe.enable_sparse_attention("window", density=0.2, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=STEPS)
    grids = {grid.tokens: grid for grid in seen if grid is not None}
    masks = session.masks().values()
    assert len(masks) == family.layers
    for mask in masks:
        grid = grids[mask.q_len]
        inside = range(grid.text_before, grid.text_before + grid.video_tokens)
        for tokens in (range(inside.start), range(inside.stop, grid.tokens)):
            assert not tokens or always_computed(mask, tokens)
        assert not always_computed(mask, inside)


def coordinates(frames: int, height: int, width: int, start: float = 0.0) -> torch.Tensor:
    """Time in seconds, row and column in pixels: ``[1, 3, tokens]``."""
    axes = start + torch.arange(frames) / 3, 32.0 * torch.arange(height), 32.0 * torch.arange(width)
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])[None]


def test_the_last_video_is_found_behind_other_ones() -> None:
    clip, condition = coordinates(3, 4, 5), coordinates(2, 4, 5, start=0.5)
    assert last_video(clip) == (3, 4, 5, 0, 0)
    assert last_video(torch.cat([condition, clip], dim=2)) == (3, 4, 5, 40, 0)
    assert last_video(torch.cat([coordinates(1, 2, 2), clip], dim=2)) == (3, 4, 5, 4, 0)
    assert last_video(coordinates(1, 1, 1)) == (1, 1, 1, 0, 0)


def test_tokens_that_are_no_raster_are_no_video() -> None:
    clip = coordinates(2, 4, 5)
    shorn = clip[:, :, [n for n in range(40) if n != 37]]  # a hole in the last frame
    assert last_video(shorn) is None
