"""Where image models keep their tokens: grids at sizes that are no squares, text, reference images."""

from __future__ import annotations

from typing import Any

import pytest
from seen_layouts import always_computed, watch_grids
from tiny_pipelines import FAMILIES
from tiny_pipelines.parts import picture

import sparsediff.layout
from sparsediff.search import TokenGrid


def image(height: int, width: int, before: int = 0, after: int = 0) -> TokenGrid:
    return TokenGrid(frames=1, height=height, width=width, text_before=before, text_after=after)


# A family's name, arguments of the call (width and height in pixels), and the grids of its calls.
CASES: list[tuple[str, dict[str, Any], set[TokenGrid]]] = [
    ("flux", {"width": 24, "height": 24}, {image(12, 12, before=16)}),
    ("flux", {"width": 40, "height": 16}, {image(8, 20, before=16)}),
    ("flux_kontext", {"width": 24, "height": 24}, {image(12, 12, before=16, after=8 * 4)}),
    (
        "flux_kontext",
        {"width": 40, "height": 16, "max_area": 40 * 16, "image": picture(8, 24)},
        {image(8, 20, before=16, after=4 * 12)},
    ),
]


@pytest.mark.parametrize(("name", "call", "expected"), CASES, ids=lambda value: str(value)[:40])
def test_grids(
    name: str, call: dict[str, Any], expected: set[TokenGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES[name]
    pipe = family.build()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=1, **call)
    assert seen == expected
    report = session.report()
    assert report.fallbacks == {}
    assert report.sparse_calls == family.calls(1)


@pytest.mark.parametrize("name", ["flux_kontext"])
def test_reference_images_are_always_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    pipe = family.build()
    session = pipe.enable_sparse_attention("window", density=0.2, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=1)
    (grid,) = seen
    assert grid is not None
    assert grid.text_after > 0
    masks = session.masks().values()
    assert len(masks) == family.layers
    for mask in masks:
        assert always_computed(mask, range(grid.tokens - grid.text_after, grid.tokens))
        assert not always_computed(mask, range(grid.text_before, grid.tokens - grid.text_after))


@pytest.mark.parametrize("compiled", [False, True])
def test_coordinates_are_read_once_for_a_run(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU would have to be waited for in every call."""
    family = FAMILIES["flux"]
    pipe = family.build()
    pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    if compiled:
        pipe.transformer.compile(backend="eager", fullgraph=True)
    reads: list[tuple[int, ...]] = []
    original = sparsediff.layout.first_image

    def reading(positions: Any) -> Any:
        reads.append(tuple(positions.shape))
        return original(positions)

    monkeypatch.setattr(sparsediff.layout, "first_image", reading)
    seen = watch_grids(monkeypatch)
    family.run(pipe, steps=3)
    assert reads == [(144, 3)]
    family.run(pipe, steps=3, width=40, height=16)
    assert reads == [(144, 3), (160, 3)]
    assert seen == {image(12, 12, before=16), image(8, 20, before=16)}
    assert pipe.sparse_attention_report().sparse_calls == family.calls(3)
