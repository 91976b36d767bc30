"""Bad input: a clear SparseError before any denoising step, and nothing left attached."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tiny_pipelines import FAMILIES, hunyuan_video, wan, wan_transformer

import sparsediff
from sparsediff.processors import is_marked

WAN = FAMILIES["wan"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return wan()


def untouched(model: Any) -> bool:
    processors = [m.processor for m in model.modules() if hasattr(m, "processor")]
    return not any(is_marked(p) for p in processors) and not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, r"density=0.0: needs .* \(0, 1\]"),
        ({"density": 1.5}, "density=1.5"),
        ({"density": "0.2"}, "density='0.2'"),
        ({"block_size": 0}, "block_size=0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"refresh": (1.5,)}, r"refresh=\(1.5,\)"),
        ({"refresh": 0.5}, "refresh=0.5"),
        ({"head_budgets": "no"}, "head_budgets='no'"),
        ({"compensate": 1}, "compensate=1"),
        ({"gate": "x"}, "gate='x'"),
        ({"recall_threshold": 2.0}, "recall_threshold"),
        ({"densty": 0.2}, "no option 'densty'.*Did you mean 'density'"),
        ({"method": "adspa"}, "Unknown method 'adspa'.*Did you mean 'adaspa'"),
        ({"method": 3}, "Unknown method 3"),
        ({"backend": "fast"}, "Unknown backend 'fast'; choose one of auto"),
    ],
)
def test_wrong_configuration(pipe: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(sparsediff.SparseError, match=message):
        pipe.enable_sparse_attention(**arguments)
    assert untouched(pipe.transformer)


def test_unsupported_targets() -> None:
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    with pytest.raises(sparsediff.SparseError, match=r"UNet2DModel .*Supported models: Wan"):
        unet.enable_sparse_attention()
    with pytest.raises(sparsediff.SparseError, match="needs a diffusers pipeline or model"):
        sparsediff.enable_sparse_attention("Wan-AI/Wan2.1")
    with pytest.raises(sparsediff.SparseError, match="not enabled"):
        sparsediff.sparse_attention_report(wan_transformer())


def test_enabling_twice(pipe: Any) -> None:
    pipe.enable_sparse_attention(density=0.25)
    with pytest.raises(sparsediff.SparseError, match=r"already enabled on transformer .*0\.25"):
        pipe.enable_sparse_attention()
    with pytest.raises(sparsediff.SparseError, match="already enabled"):
        pipe.transformer.enable_sparse_attention()
    pipe.disable_sparse_attention()
    pipe.disable_sparse_attention()
    assert untouched(pipe.transformer)


def test_broken_model_is_named(pipe: Any) -> None:
    pipe = wan()
    with torch.no_grad():
        pipe.transformer.blocks[1].attn1.to_q.weight[0, 0] = float("nan")
    session = pipe.enable_sparse_attention(block_size=8)
    with pytest.raises(
        sparsediff.SparseError, match=r"q of transformer\.blocks\.1\.attn1 holds NaN"
    ):
        WAN.run(pipe)
    assert session.report().sparse_calls == 0
    assert not session.enabled
    assert untouched(pipe.transformer)


def test_padding_mask_is_honoured() -> None:
    """HunyuanVideo always passes a mask; a full density must still equal dense with padded text."""
    model = hunyuan_video().transformer
    noise = torch.Generator().manual_seed(0)
    arguments = {
        "hidden_states": torch.randn(2, 4, 3, 8, 8, generator=noise),
        "timestep": torch.tensor([500.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 16, 16, generator=noise),
        "encoder_attention_mask": torch.arange(16)[None] < torch.tensor([[5], [16]]),
        "pooled_projections": torch.randn(2, 8, generator=noise),
        "guidance": torch.tensor([6000.0, 6000.0]),
    }
    with torch.no_grad():
        dense = model(**arguments)[0]
        model.enable_sparse_attention(density=1.0, block_size=16, warmup=0.0)
        sparse = model(**arguments)[0]
    report = model.sparse_attention_report()
    assert (report.sparse_calls, report.fallbacks) == (3, {})
    torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=1e-4)


def test_short_sequences_and_odd_masks_run_dense(pipe: Any) -> None:
    dense = WAN.run(pipe)
    pipe.enable_sparse_attention("window", block_size=64)
    assert torch.equal(WAN.run(pipe), dense)
    report = pipe.sparse_attention_report()
    assert report.fallbacks == {"48 tokens fit into one block of 64": 24}
    assert (report.sparse_calls, report.dense_calls) == (0, 24)
    pipe.disable_sparse_attention()
