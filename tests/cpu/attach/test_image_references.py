"""Image models beside their grid: reference pictures, coordinates, texts of different length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from seen_layouts import always_computed, image, watch_grids
from tiny_pipelines import FAMILIES
from tiny_pipelines.flux import flux2_klein_kv
from tiny_pipelines.parts import picture
from tiny_pipelines.qwen_image import qwen_image_edit_plus

import sparsediff


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


def test_pictures_to_edit_are_always_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen-Image-Edit with two pictures of other sizes than the new one."""
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 32 * 64)
    pipe = qwen_image_edit_plus()
    pipe.set_progress_bar_config(disable=True)
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    seen = watch_grids(monkeypatch)
    pipe(
        image=[picture(100, 50), picture(50, 50)],
        prompt_embeds=torch.zeros(1, 16, 16),
        width=80,
        height=32,
        num_inference_steps=2,
        output_type="latent",
    )
    tokens = 8 * 20
    pictures = 16 * 8 + 8 * 8
    assert seen == {image(8, 20, before=16, after=pictures)}
    report = session.report()
    assert (report.sparse_calls, report.fallbacks) == (2 * 2, {})
    for mask in session.masks().values():
        assert always_computed(mask, range(16))
        assert always_computed(mask, range(16 + tokens, 16 + tokens + pictures))
        assert not always_computed(mask, range(16, 16 + tokens))


@pytest.mark.parametrize("name", ["qwen_image", "chroma", "lumina2"])
def test_prompts_of_different_length_in_a_batch(name: str) -> None:
    """Every call has a mask then, with a hole before the image (Lumina 2: behind it)."""
    family = FAMILIES[name]
    pipe = family.build()
    prompts = {"prompt": ["a red box", "a circle"], "negative_prompt": ["dark", "blurry"]}

    def run() -> torch.Tensor:
        noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        arguments = family.call | prompts | {"num_inference_steps": 2}
        return pipe(generator=noise, output_type="latent", **arguments)[0]

    pipe.set_progress_bar_config(disable=True)
    dense = run()
    session = pipe.enable_sparse_attention("window", density=1.0, block_size=8, gate=False)
    full = run()
    report = session.report()
    assert (report.sparse_calls, report.fallbacks) == (family.calls(2), {})
    session.disable()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    sparse = run()
    assert session.report().fallbacks == {}
    # Two steps of float32 sampling, each call 1e-6 off by its order of summation.
    assert (full - dense).norm() < 1e-4 * dense.norm()
    assert (sparse - dense).norm() > 1e-3 * dense.norm()


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
    family.run(pipe, steps=3)
    assert reads == [(144, 3), (144, 3)]
    assert seen == {image(12, 12, before=16)}
    assert pipe.sparse_attention_report().sparse_calls == family.calls(3)


@pytest.mark.parametrize("reference", [False, True])
def test_kept_keys_of_reference_images_run_dense_with_a_reason(reference: bool) -> None:
    """Flux.2 Klein KV: its queries are fewer than its keys, but for the references' own attention."""
    pipe = flux2_klein_kv()
    pipe.set_progress_bar_config(disable=True)
    arguments = FAMILIES["flux2"].call | {"num_inference_steps": 3, "output_type": "latent"}
    if reference:
        arguments["image"] = picture(64, 64)

    def run() -> torch.Tensor:
        return pipe(generator=torch.Generator().manual_seed(0), **arguments)[0]

    dense = run()
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    out = run()
    report = session.report()
    assert torch.equal(out, dense) is reference
    if not reference:
        assert (report.sparse_calls, report.fallbacks) == (3 * 3, {})
        return
    kept = "takes keys that are not of its own tokens alone"
    assert report.sparse_calls == 0
    assert report.fallbacks == {
        "no token grid of the model's inputs describes a sequence of 1024 tokens": 3,
        f"Flux2KVAttnProcessor {kept}": 2 * 1,
        f"Flux2KVParallelSelfAttnProcessor {kept}": 2 * 2,
    }
