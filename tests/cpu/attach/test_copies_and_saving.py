"""Copies, pickles and saved files of an enabled model are those of a plain one; nothing outlives it."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES, wan, wan_transformer

import sparsediff

WAN = FAMILIES["wan"]


def test_copies_are_dense(pipe: Any) -> None:
    dense = WAN.run(pipe)
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    ran = len(session.log.calls)
    twin = copy.deepcopy(pipe.transformer)
    reborn = pickle.loads(pickle.dumps(pipe.transformer.blocks[0].attn1.processor))
    assert type(reborn).__mro__[1] is object
    pipe.disable_sparse_attention()
    pipe.transformer = twin
    assert torch.equal(WAN.run(pipe), dense)
    assert len(session.log.calls) == ran
    own = twin.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    assert own.report().sparse_calls > 0
    assert len(session.log.calls) == ran
    own.disable()
    assert torch.equal(WAN.run(pipe), dense)


def test_saved_files_are_those_of_the_dense_model(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "dense")
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.save_pretrained(tmp_path / "sparse")
    names = sorted(p.relative_to(tmp_path / "dense") for p in (tmp_path / "dense").rglob("*.*"))
    assert names
    for name in names:
        assert (tmp_path / "dense" / name).read_bytes() == (tmp_path / "sparse" / name).read_bytes()


def test_collected_pipeline_does_not_disable_a_new_one(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage collection may come in the middle of enabling."""
    from sparsediff import dispatch

    old = wan()
    old.enable_sparse_attention(**OPTIONS)
    del old
    wrap = dispatch.wrap

    def wrap_and_collect() -> None:
        wrap()
        gc.collect()

    monkeypatch.setattr(dispatch, "wrap", wrap_and_collect)
    pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    assert calls(pipe) == (18, 6)


def test_kept_session_does_not_keep_the_model() -> None:
    pipe = wan()
    session = pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    model = weakref.ref(pipe.transformer)
    del pipe
    gc.collect()
    assert model() is None
    assert session.report().sparse_calls == 18
    session.disable()


def test_exchanged_transformer_can_still_be_disabled(pipe: Any) -> None:
    old = pipe.transformer
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer = wan_transformer()
    pipe.disable_sparse_attention()
    assert not old._forward_pre_hooks


def test_forgotten_pipelines_unwrap_diffusers() -> None:
    """A pipeline that is dropped while enabled leaves diffusers' own functions behind."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = dict(_AttentionBackendRegistry._backends)
    forgotten = wan()
    forgotten.enable_sparse_attention()
    assert dict(_AttentionBackendRegistry._backends) != before
    del forgotten
    gc.collect()
    assert dict(_AttentionBackendRegistry._backends) == before


def test_saved_while_enabled_and_loaded_again(
    pipe: Any, expected: torch.Tensor, tmp_path: Path
) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    WAN.run(pipe)
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.WanPipeline.from_pretrained(tmp_path)
    with pytest.raises(sparsediff.SparseError, match="not enabled"):
        loaded.sparse_attention_report()
    loaded.enable_sparse_attention(**OPTIONS)
    assert torch.equal(WAN.run(loaded), expected)
    assert calls(loaded) == (18, 6)


def test_copy_of_a_whole_pipeline(pipe: Any, expected: torch.Tensor) -> None:
    dense = WAN.run(pipe)
    session = pipe.enable_sparse_attention(**OPTIONS)
    twin = copy.deepcopy(pipe)
    assert torch.equal(WAN.run(twin), dense)
    assert session.log.calls == []
    twin.enable_sparse_attention("window", **OPTIONS)
    assert not torch.equal(WAN.run(twin), expected)
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == calls(twin) == (18, 6)
    pipe.disable_sparse_attention()
    WAN.run(twin)
    assert calls(twin) == (18, 6)


def test_pickled_model_is_a_plain_one(pipe: Any) -> None:
    dense = WAN.run(pipe)
    session = pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer = pickle.loads(pickle.dumps(pipe.transformer))
    assert torch.equal(WAN.run(pipe), dense)
    assert session.log.calls == []


def test_another_transformer_is_enabled_anew(pipe: Any, expected: torch.Tensor) -> None:
    dense = WAN.run(pipe)
    old = pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer = wan_transformer()
    assert torch.equal(WAN.run(pipe), dense)
    assert calls(pipe) == (0, 0)
    pipe.enable_sparse_attention(**OPTIONS)
    assert torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)
    pipe.disable_sparse_attention()
    assert torch.equal(WAN.run(pipe), dense)
    old.disable()
