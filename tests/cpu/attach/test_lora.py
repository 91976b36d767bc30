"""LoRA adapters that are loaded, fused, exchanged and trained under sparse attention."""

from __future__ import annotations

from typing import Any

import torch
from counted import OPTIONS, calls
from tiny_pipelines import FAMILIES

WAN = FAMILIES["wan"]


def test_lora_added_and_removed(pipe: Any, expected: torch.Tensor) -> None:
    from peft import LoraConfig

    pipe.enable_sparse_attention(**OPTIONS)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipe.transformer.add_adapter(config)
    assert not torch.equal(WAN.run(pipe), expected)
    assert calls(pipe) == (18, 6)
    pipe.transformer.delete_adapters("default")
    assert torch.allclose(WAN.run(pipe), expected, atol=1e-6)
    assert calls(pipe) == (18, 6)
