"""The facts: parameter counts of the whole models, blocks, sizes, and the pipelines' own inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tiny_pipelines import FAMILIES

from sparsediff.cli.bench_transformer import NAMES
from sparsediff.kernels.errors import SparseError
from sparsediff.models import supported_models
from sparsediff.transformer_bench.architectures import ARCHITECTURES, architecture
from sparsediff.transformer_bench.model_inputs import model_inputs, timestep
from sparsediff.transformer_bench.random_model import skeleton

PUBLISHED = {"wan2.1-14b": 14.3e9, "hunyuanvideo": 12.8e9, "cogvideox1.5-5b": 5.6e9, "flux": 11.9e9}
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_number(name: str) -> None:
    found = architecture(name)
    model = skeleton(found.model, found.config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert found.parameters == PUBLISHED[name]
    assert count == pytest.approx(PUBLISHED[name], rel=0.02)


def test_names() -> None:
    assert tuple(ARCHITECTURES) == NAMES == tuple(PUBLISHED)
    assert {found.model for found in ARCHITECTURES.values()} <= set(supported_models())
    with pytest.raises(SparseError, match=r"No architecture 'wan'; choose one of wan2\.1-14b"):
        architecture("wan")


@pytest.mark.parametrize(
    ("name", "layers", "counts"),
    [
        ("wan2.1-14b", 3, {"num_layers": 3}),
        ("hunyuanvideo", 60, {"num_layers": 20, "num_single_layers": 40}),
        ("hunyuanvideo", 6, {"num_layers": 2, "num_single_layers": 4}),
        ("hunyuanvideo", 1, {"num_layers": 1, "num_single_layers": 1}),
        ("flux", 9, {"num_layers": 3, "num_single_layers": 6}),
    ],
)
def test_fewer_layers(name: str, layers: int, counts: dict[str, int]) -> None:
    found = architecture(name)
    assert found.with_layers(layers) == {**found.config, **counts}
    assert found.with_layers(None) is found.config


@pytest.mark.parametrize("layers", [0, -1, 41])
def test_layers_the_model_does_not_have(layers: int) -> None:
    with pytest.raises(SparseError, match=r"wan2\.1-14b has 40"):
        architecture("wan2.1-14b").with_layers(layers)


@pytest.mark.parametrize(
    ("name", "latents"),
    [
        ("wan2.1-14b", (21, 90, 160)),
        ("hunyuanvideo", (21, 90, 160)),
        ("cogvideox1.5-5b", (22, 90, 160)),  # in pairs
        ("flux", (1, 90, 160)),
    ],
)
def test_latents_of_720p(name: str, latents: tuple[int, int, int]) -> None:
    found = architecture(name)
    assert found.latents((1280, 720, 81 if found.frames_in_latent else 1)) == latents


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        ("wan2.1-14b", (1281, 720, 81), "1280x720x81"),
        ("wan2.1-14b", (1280, 720, 80), "1280x720x81"),
        ("cogvideox1.5-5b", (1280, 721, 7), "1280x720x9"),
        ("flux", (1000, 7, 1), "1008x16"),
    ],
)
def test_sizes_that_do_not_fit(name: str, size: Any, near: str) -> None:
    with pytest.raises(SparseError, match=f"nearest size that fits is {near}."):
        architecture(name).latents(size)


@pytest.mark.parametrize(
    ("name", "family", "size"),
    [
        ("wan2.1-14b", "wan", (64, 64, 9)),
        ("hunyuanvideo", "hunyuan_video", (64, 64, 9)),
        ("cogvideox1.5-5b", "cogvideox15", (64, 64, 9)),
        ("flux", "flux", (192, 192, 1)),  # its toy autoencoder does not shrink: 24x24 pixels
    ],
)
def test_inputs_are_those_of_the_pipeline(name: str, family: str, size: Any) -> None:
    """Names, shapes and kinds of numbers of every input, beside the pipeline's own calls."""
    pipe, calls, branches = FAMILIES[family].build(), [], []
    forward, context = pipe.transformer.forward, pipe.transformer.cache_context
    pipe.transformer.forward = lambda **given: calls.append(given) or forward(**given)
    pipe.transformer.cache_context = lambda name, **more: branches.append(name) or context(name)
    FAMILIES[family].run(pipe, steps=2)
    toy = dataclasses.replace(architecture(name), config=dict(pipe.transformer.config), text=16)
    made = model_inputs(toy, size, **CPU)
    made["timestep"] = timestep(toy, 1.0, made["hidden_states"])
    assert tuple(branches) == 2 * toy.branches
    unused = {"attention_kwargs", "joint_attention_kwargs", "return_dict"}
    wanted = {key: value for key, value in calls[0].items() if key not in unused}
    assert set(made) == set(wanted)
    toy_has_none = {key for key, value in wanted.items() if value is None}
    assert toy_has_none <= {"guidance"}
    for key in set(wanted) - toy_has_none:
        value = wanted[key]
        pairs = (
            zip(made[key], value, strict=True)
            if key == "image_rotary_emb"
            else [(made[key], value)]
        )
        for ours, theirs in pairs:
            assert ours.shape == theirs.shape, key
            if "mask" not in key and key != "timestep":
                assert ours.dtype == theirs.dtype, key
    ours, theirs = (float(found["timestep"].max()) for found in (made, wanted))
    assert 0.3 * ours < theirs <= 1.001 * ours  # each scheduler starts somewhat below the top
    if "image_rotary_emb" in made:
        for ours, theirs in zip(
            made["image_rotary_emb"], calls[0]["image_rotary_emb"], strict=True
        ):
            torch.testing.assert_close(ours, theirs)
