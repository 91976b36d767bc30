"""A small model for each bucket of timesteps: which runs, that it is the masked one, and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_pipelines import wan
from tiny_pipelines.unet import _unet as tiny_unet
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.buckets import BucketedModel, Buckets, bucketed
from sparsediff.prune.buckets.bucket_files import BUCKETS
from sparsediff.prune.gates import gated
from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import structures_of

HALVES = Buckets(boundaries=(900.0,))
CALL = {
    "prompt": "a red circle",
    "negative_prompt": "blurry",
    "guidance_scale": 4.0,
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 4,
    "max_sequence_length": 16,
    "output_type": "latent",
}


def masks_of(model: Any, seed: int) -> Masks:
    """About half of the heads and neurons of the last block; the others stay whole."""
    torch.manual_seed(seed)
    last = structures_of(model)[-1].path.rpartition(".")[0]
    kept = {}
    for one in structures_of(model):
        if one.path.startswith(last):
            stay = torch.rand(one.units) < 0.5
            stay[seed % one.units] = True
            kept[one.key] = stay
    return Masks(kept=kept)


def cut_wan() -> tuple[Any, Any, list[Masks], BucketedModel]:
    pipe = wan(layers=2)
    pipe.set_progress_bar_config(disable=True)
    whole = pipe.transformer
    masks = [masks_of(whole, 0), masks_of(whole, 1)]
    return pipe, whole, masks, bucketed(whole, HALVES, masks)


def run(pipe: Any, **changes: Any) -> Tensor:
    frames: Tensor = pipe(**(CALL | changes), generator=torch.Generator().manual_seed(0)).frames
    return frames


@contextmanager
def noted(models: Any) -> Iterator[list[tuple[int, float]]]:
    """Which of several models ran, and the timestep it was told."""
    seen: list[tuple[int, float]] = []
    handles = []
    for place, model in enumerate(models):

        def hook(module: Any, arguments: Any, named: Any, place: int = place) -> None:
            seen.append((place, float(named["timestep"].flatten()[0])))

        handles.append(model.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def test_places_and_boundaries() -> None:
    buckets = Buckets(boundaries=(800.0, 300.0))
    assert buckets.count == 3
    places = [buckets.place(torch.tensor(t)) for t in (999.0, 800.0, 799.9, 300.0, 1.0)]
    assert places == [0, 0, 1, 1, 2]
    assert (
        buckets.place(torch.tensor([[0.0, 900.0], [0.0, 850.0]])) == 0
    )  # [b, tokens]: first frame 0
    assert Buckets(boundaries=()).place(torch.tensor([5, 900])) == 0
    assert Buckets.even(4).boundaries == (750.0, 500.0, 250.0)
    assert Buckets.even(2, first=1.0).boundaries == (0.5,)
    assert Buckets.of_run([1000, 900, 500, 100, 50], 2).boundaries == (700.0,)
    with pytest.raises(SparseError, match="one bucket at a time"):
        buckets.place(torch.tensor([900, 100]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Buckets(boundaries=(100.0, 500.0)),
        lambda: Buckets(boundaries=(float("nan"),)),
        lambda: Buckets.even(0),
        lambda: Buckets.of_run([900.0, 100.0], 3),
    ],
)
def test_what_is_no_buckets_is_refused(make: Any) -> None:
    with pytest.raises(SparseError):
        make()


def test_the_right_model_runs_and_is_the_masked_one() -> None:
    pipe, whole, masks, model = cut_wan()
    structures = structures_of(whole)
    now = [0]

    def at_model(module: Any, arguments: Any, named: Any) -> None:
        now[0] = 0 if float(named["timestep"].flatten()[0]) >= 900 else 1

    def values(key: str) -> Tensor:
        kept = masks[now[0]].kept.get(key)
        return torch.ones(1) if kept is None else kept.float()

    named = [one for one in structures if one.key in masks[0].kept]
    handle = whole.register_forward_pre_hook(at_model, with_kwargs=True)
    with gated(whole, named, values):
        expected = run(pipe)
    handle.remove()
    pipe.transformer = model
    with noted(model.models) as seen:
        found = run(pipe)
    assert len(seen) == 4 * 2  # steps, and predictions for guidance
    assert [place for place, _ in seen] == [0 if time >= 900 else 1 for _, time in seen]
    assert {place for place, _ in seen} == {0, 1}
    assert model.last == 1
    # Four steps of float32 in another order, guided 4 times: far above 1e-6, far below a wrong mask.
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-4 * scale
    assert float((run_with(pipe, model.models[0]) - expected).abs().max()) > 1e-3 * scale


def run_with(pipe: Any, model: Any) -> Tensor:
    pipe.transformer = model
    return run(pipe)


def test_uncut_weights_are_in_memory_once_and_stay_so() -> None:
    _, whole, masks, model = cut_wan()
    cut = {
        part.module for one in structures_of(whole) if one.key in masks[0].kept for part in one.cuts
    }
    first, second = (dict(one.named_parameters()) for one in model.models)
    shared = {name for name in first if first[name] is second[name]}
    untouched = {name for name in first if not any(name.startswith(f"{path}.") for path in cut)}
    norms = {name for name in untouched if ".norm_q" in name or ".norm_k" in name}
    assert untouched - norms <= shared
    assert len({id(p) for p in first.values()}) == len(first), "a model's own weights are tied"
    memory = model.memory
    own = sum(second[name].numel() * 4 for name in second if name not in shared)
    assert memory.together == memory.each[0] + own < sum(memory.each)
    model.to(torch.float64)
    assert model.memory.together == 2 * memory.together


def test_the_folder_gives_the_same_model_back(tmp_path: Path) -> None:
    pipe, _, _, model = cut_wan()
    pipe.transformer = model
    expected = run(pipe)
    model.save_pretrained(tmp_path)
    loaded = BucketedModel.from_pretrained(tmp_path)
    assert loaded.memory == model.memory
    assert loaded.buckets == model.buckets
    assert [type(one) for one in loaded.models] == [type(one) for one in model.models]
    assert torch.equal(run_with(pipe, loaded), expected)
    stored = [load_file(path) for path in sorted(tmp_path.glob("*/weights.safetensors"))]
    bytes_of = [sum(x.numel() * x.element_size() for x in tensors.values()) for tensors in stored]
    assert sum(bytes_of) == model.memory.together
    assert not list(tmp_path.glob("**/*.bin"))
    assert (
        next(BucketedModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).parameters()).dtype
        == torch.bfloat16
    )


def changed(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / BUCKETS).read_text()) | changes
    (folder / BUCKETS).write_text(json.dumps(values))


def config_changed(folder: Path, **changes: Any) -> None:
    path = folder / "bucket-0/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    unet = tiny_unet()
    bucketed(unet, HALVES, [masks_of(unet, 0), masks_of(unet, 1)]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / BUCKETS).unlink(), "cannot be read"),
        (lambda f: (f / BUCKETS).write_text("[]"), "has the schema"),
        (lambda f: changed(f, boundaries=[1.0, 2.0]), "timesteps that fall"),
        (lambda f: changed(f, boundaries=[2.0, 1.0]), "one for each"),
        (lambda f: changed(f, extra=1), "unknown key 'extra'"),
        (lambda f: changed(f, classes=["os", "os"]), "prunes no 'os'"),
        (lambda f: changed(f, shared=[{}, {}]), "are not those of its config"),
        (lambda f: changed(f, shared=[{}, {"a": "7/b"}]), "shares 7/b, which is not there"),
        (lambda f: config_changed(f, pruning={"heads": 3}), "pruning"),
        (
            lambda f: config_changed(f, block_out_channels=[4]),
            "makes no PrunedUNet2DConditionModel",
        ),
        (lambda f: (f / "bucket-1/weights.safetensors").write_bytes(b"PK\x03\x04"), "as weights"),
    ],
)
def test_folders_of_another_kind_are_refused(
    saved: Path, tmp_path: Path, harm: Any, says: str
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    harm(folder)
    with pytest.raises(SparseError, match=says):
        BucketedModel.from_pretrained(folder)


def test_what_a_pipeline_reads_is_the_first_models_and_changes_are_refused() -> None:
    unet = tiny_unet()
    model = bucketed(unet, HALVES, [masks_of(unet, 0), masks_of(unet, 1)])
    assert model.config.cross_attention_dim == 32
    assert model.dtype == torch.float32
    assert model.time_embedding is model.models[0].time_embedding
    assert not hasattr(model, "nothing_of_this_name")
    with pytest.raises(AttributeError, match="on each of its small models"):
        _ = model.set_attn_processor
    with pytest.raises(SparseError, match="one for each"):
        BucketedModel(HALVES, [unet])
    with pytest.raises(SparseError, match="one for each"):
        bucketed(unet, HALVES, [masks_of(unet, 0)])


def test_sparse_attention_works_in_every_bucket() -> None:
    pipe, _, _, model = cut_wan()
    pipe.transformer = model
    larger = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2}
    plain = run(pipe, **larger)
    pipe.enable_sparse_attention("window", density=0.5, block_size=8, warmup=0, gate=False)
    with noted(model.models) as seen:
        assert not torch.equal(run(pipe, **larger), plain)
    report = pipe.sparse_attention_report()
    assert {place for place, _ in seen} == {0, 1}
    assert report.sparse_calls == 2 * 2 * 2  # layers of the model that runs, steps, predictions
    assert not report.dense_calls
    assert not report.fallbacks
    pipe.disable_sparse_attention()
    assert torch.equal(run(pipe, **larger), plain)


def test_a_saved_pipeline_is_loaded_with_its_buckets(tmp_path: Path) -> None:
    pipe, _, _, model = cut_wan()
    pipe.transformer = model
    expected = run(pipe)
    pipe.save_pretrained(tmp_path)
    loaded = type(pipe).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.transformer) is BucketedModel
    assert loaded.transformer.memory == model.memory
    with noted(loaded.transformer.models) as seen:
        assert torch.equal(run(loaded), expected)
    assert {place for place, _ in seen} == {0, 1}
