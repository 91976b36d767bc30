"""LoRA adapters that are loaded, fused, exchanged and trained under sparse attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch._dynamo
from counted import OPTIONS, calls
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tiny_pipelines import FAMILIES, wan
from torch._dynamo.testing import CompileCounter

WAN = FAMILIES["wan"]
# Four float32 steps with weights that were added to and taken off again.
ROUNDING = 1e-5


def adapter(seed: int = 0) -> LoraConfig:
    torch.manual_seed(seed)
    return LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters as people download them."""
    place = tmp_path_factory.mktemp("lora")
    for seed in (0, 1):
        pipe = wan()
        pipe.transformer.add_adapter(adapter(seed))
        layers = get_peft_model_state_dict(pipe.transformer)
        name = f"{seed}.safetensors"
        diffusers.WanPipeline.save_lora_weights(place, layers, weight_name=name)
    return place


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_loaded_fused_unfused_and_unloaded(pipe: Any, expected: torch.Tensor, folder: Path) -> None:
    first = wan()
    first.load_lora_weights(folder, weight_name="0.safetensors")
    first.enable_sparse_attention(**OPTIONS)
    with_lora = WAN.run(first)
    assert calls(first) == (18, 6)
    assert apart(with_lora, expected) > 0.01

    pipe.enable_sparse_attention(**OPTIONS)
    pipe.load_lora_weights(folder, weight_name="0.safetensors")
    assert torch.equal(WAN.run(pipe), with_lora), "before or after enabling is the same"
    for change in (pipe.fuse_lora, pipe.unfuse_lora):
        change()
        assert apart(WAN.run(pipe), with_lora) < ROUNDING
        assert calls(pipe) == (18, 6)
    pipe.unload_lora_weights()
    assert apart(WAN.run(pipe), expected) < ROUNDING
    assert calls(pipe) == (18, 6)


def test_added_and_deleted(pipe: Any, expected: torch.Tensor) -> None:
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.add_adapter(adapter())
    assert not torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)
    pipe.transformer.delete_adapters("default")
    assert apart(WAN.run(pipe), expected) < ROUNDING
    assert calls(pipe) == (18, 6)


def test_exchanged_in_a_compiled_model(pipe: Any, folder: Path) -> None:
    eager = wan()
    eager.load_lora_weights(folder, weight_name="1.safetensors")
    eager.enable_sparse_attention(**OPTIONS)
    second = WAN.run(eager)

    torch._dynamo.reset()
    counter = CompileCounter()
    pipe.enable_lora_hotswap(target_rank=2)
    pipe.load_lora_weights(folder, weight_name="0.safetensors", adapter_name="style")
    pipe.enable_sparse_attention(**OPTIONS)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    assert apart(WAN.run(pipe), second) > 0.01
    pipe.load_lora_weights(folder, weight_name="1.safetensors", adapter_name="style", hotswap=True)
    assert apart(WAN.run(pipe), second) < ROUNDING
    assert calls(pipe) == (18, 6)
    assert counter.frame_count == 1


@pytest.mark.parametrize("method", ["window", "adaspa"])
def test_trained_with_gradient_checkpointing(method: str) -> None:
    """Every layer runs again in the backward pass, and has to compute what it did before."""
    noise = torch.Generator().manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, generator=noise),
        "encoder_hidden_states": torch.randn(1, 16, 32, generator=noise),
    }
    gradients = []
    for checkpointing in (False, True):
        model = wan().transformer
        model.requires_grad_(False)
        model.add_adapter(adapter())
        session = model.enable_sparse_attention(
            method, density=0.4, block_size=8, warmup=0.0, gate=False
        )
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.train()
        weights = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=0.1)
        for timestep in (900.0, 300.0):
            optimizer.zero_grad()
            model(timestep=torch.tensor([timestep]), **inputs)[0].square().mean().backward()
            optimizer.step()
        report = session.report()
        assert report.fallbacks == {}
        assert report.dense_calls == 0
        assert report.sparse_calls >= 6
        gradients.append(torch.cat([value.grad.flatten() for value in weights]))
        session.disable()
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)
