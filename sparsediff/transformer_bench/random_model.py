"""The real diffusers class with random weights, made on the device: nothing is downloaded or copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.models import facts_of


def skeleton(model: str, config: Mapping[str, Any]) -> nn.Module:
    """A diffusers model whose parameters have no storage; its buffers (rotary tables) are real."""
    import diffusers
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        found: nn.Module = getattr(diffusers, model)(**config)
    return found.eval().requires_grad_(False)


def fill(model: nn.Module, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
    """Give a skeleton random weights on `device`, in the dtypes that loading it in `dtype` gives.

    Matrices are normal with variance 1 / fan-in, so that activations keep their size; norms are ones
    and biases zeros. Raises SparseError when the weights do not fit into the memory that is free.
    """
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    kinds = {
        name: torch.float32 if kept & set(name.split(".")) else dtype
        for name, _ in model.named_parameters()
    }
    needed = sum(p.numel() * kinds[name].itemsize for name, p in model.named_parameters())
    _require_memory(needed, device)
    generator = torch.Generator(device).manual_seed(seed)
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            full = f"{path}.{name}" if path else name
            weight = torch.empty(parameter.shape, device=device, dtype=kinds[full])
            _initialise(weight, name, generator)
            module._parameters[name] = nn.Parameter(weight, requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)


def _initialise(weight: Tensor, name: str, generator: torch.Generator) -> None:
    if weight.dim() > 1:
        fan_in = weight.numel() // weight.shape[0]
        weight.normal_(0.0, fan_in**-0.5, generator=generator)
    else:
        weight.fill_(0.0 if name.endswith("bias") else 1.0)


def _require_memory(needed: int, device: torch.device) -> None:
    free = free_memory(device)
    if free is not None and needed > free:
        raise SparseError(
            f"The weights take {needed / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB "
            f"free. Give fewer blocks with --layers."
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if device.type == "cpu" and table.exists() else []
    kib = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kib[0]) * 1024 if kib else None


@contextmanager
def first_blocks(model: nn.Module) -> Iterator[None]:
    """Within the block, the model runs only the first block of each kind: a rehearsal in its shapes."""
    facts = facts_of(model)
    names = {path.split(".")[0] for path in facts.attention} if facts else set()
    stacks = {name: getattr(model, name) for name in names}
    for name, stack in stacks.items():
        setattr(model, name, nn.ModuleList(list(stack)[:1]))
    try:
        yield
    finally:
        for name, stack in stacks.items():
            setattr(model, name, stack)
