"""The digest of self-attention weights: tells a fine-tune from the model a plan was searched on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_VALUES = 64  # of every parameter
# Dtypes whose rounding to bfloat16 is that of the float32 weights they came from. A float16 load has
# rounded before and would differ from a bfloat16 load of the same file.
_EXACT = (torch.float32, torch.bfloat16)
# What diffusers' fuse_qkv_projections adds; the parameters it copies stay.
_FUSED = ("to_qkv.", "to_kv.", "to_added_qkv.", "to_added_kv.")


def weights_digest(modules: Iterable[nn.Module]) -> str | None:
    """SHA-256 over a few values of every parameter of the modules, as hexadecimal text.

    Values are taken evenly spaced and rounded to bfloat16, so float32 and bfloat16 loads agree. None
    when a parameter has no plain values to take: offloaded, sharded, quantised, float16.
    """
    digest = hashlib.sha256()
    samples: list[Tensor] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if name.startswith(_FUSED) and getattr(module, "fused_projections", False):
                continue
            if not _is_plain(parameter):
                return None
            digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
            samples.append(_sample(parameter.detach()))
    if not samples:
        return None
    # One transfer for all: thousands of small ones would take longer than loading.
    values = torch.cat([sample.to(samples[0].device) for sample in samples]).cpu()
    digest.update(values.view(torch.int16).numpy().astype("<i2").tobytes())
    return digest.hexdigest()


def _is_plain(parameter: nn.Parameter) -> bool:
    plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
    here = not parameter.is_meta and parameter.numel() > 0  # not offloaded to a disk
    return plain and here and parameter.dtype in _EXACT


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.reshape(-1)
    count = min(_VALUES, flat.numel())
    places = torch.arange(count, device=flat.device) * flat.numel() // max(count, 1)
    return flat[places].to(torch.bfloat16)
