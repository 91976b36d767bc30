"""Sharding: every process holds a part of each weight, and gathers a block's while it runs (FSDP2).

accelerate's own way ties one optimiser to one model; here two roles learn on one base. So torch's
`fully_shard` is applied directly, on the processes that accelerate has started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError


def shard(model: nn.Module, accelerator: Any) -> None:
    """Shard a model in place over all processes, a block at a time and then what is left.

    Its parameters become DTensors, so optimisers are made afterwards. Raises SparseError for a model
    that does not say what its blocks are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = getattr(model, "_no_split_modules", None) or ()
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    if not blocks:
        raise SparseError(
            f"{type(model).__name__} does not say which of its blocks stay whole (_no_split_modules), "
            f"so it cannot be sharded. Leave out --shard."
        )
    # Its forward gets autocast as an unsharded model's does; it is not wrapped.
    accelerator.prepare_model(model, evaluation_mode=True)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in (*reversed(blocks), model):  # inner blocks before those that hold them
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def is_sharded(value: Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    return hasattr(value, "full_tensor")


def own_part(value: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, where it is not sharded."""
    part: Tensor = value.to_local() if is_sharded(value) else value  # type: ignore[attr-defined]
    return part.detach()


def whole(value: Tensor) -> Tensor:
    """All of a tensor on the CPU; every process has to ask."""
    full: Tensor = value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]
    return full.detach().cpu()


def whole_model(model: Any) -> nn.Module:
    """A model on the CPU with all the weights of a sharded one; every process has to ask."""
    from torch.distributed.fsdp import FSDPModule

    kind: Any = next(k for k in type(model).__mro__ if not issubclass(k, FSDPModule))
    made: nn.Module = kind.from_config(model.config)
    made.load_state_dict({name: whole(value) for name, value in model.state_dict().items()})
    return made


class Shards:
    """Weights, optimisers and averages of this process: one file of a checkpoint for each process.

    Nothing is gathered for it, so no process waits for another that failed to write.
    """

    def __init__(
        self,
        accelerator: Any,
        parameters: Mapping[str, nn.Parameter],
        optimizers: Mapping[str, Any],
        averages: Any,
    ) -> None:
        self.name = f"shard-{accelerator.process_index}-of-{accelerator.num_processes}.safetensors"
        self.parameters, self.optimizers, self.averages = parameters, optimizers, averages

    def save(self, folder: Path) -> None:
        """Write this process's file."""
        found = {f"weight.{name}": own_part(value) for name, value in self.parameters.items()}
        for role, optimizer in self.optimizers.items():
            for number, value in enumerate(_values(optimizer)):
                for key, part in optimizer.state.get(value, {}).items():
                    found[f"optimizer.{role}.{number}.{key}"] = own_part(part)
        if self.averages is not None:
            for number, value in enumerate(self.averages.shadow_params):
                found[f"average.{number}"] = own_part(value)
            found["average.steps"] = torch.tensor(self.averages.optimization_step)
        # Parts of one tensor share its memory, which safetensors refuses.
        save_file({name: value.cpu().clone() for name, value in found.items()}, folder / self.name)

    def load(self, folder: Path) -> None:
        """Put everything back. Raises SparseError for a checkpoint of other processes or weights."""
        if not (folder / self.name).is_file():
            raise SparseError(
                f"{folder} holds no {self.name}. Resume with as many processes as it was started with."
            )
        saved = load_file(folder / self.name)
        for name, value in self.parameters.items():
            _fill(value, saved.get(f"weight.{name}"), name)
        for role, optimizer in self.optimizers.items():
            for number, value in enumerate(_values(optimizer)):
                start = f"optimizer.{role}.{number}."
                found = {k.removeprefix(start): v for k, v in saved.items() if k.startswith(start)}
                optimizer.state[value] = {k: _like(value, v) for k, v in found.items()}
        if self.averages is not None:
            for number, value in enumerate(self.averages.shadow_params):
                _fill(value, saved.get(f"average.{number}"), f"average {number}")
            self.averages.optimization_step = int(saved["average.steps"])


def _values(optimizer: Any) -> list[nn.Parameter]:
    return [value for group in optimizer.param_groups for value in group["params"]]


def _fill(value: Tensor, saved: Tensor | None, name: str) -> None:
    part = own_part(value)
    if saved is None or saved.shape != part.shape:
        raise SparseError(
            f"The checkpoint does not fit this training: of {name} it has "
            f"{'nothing' if saved is None else list(saved.shape)}, not {list(part.shape)}. Resume with "
            f"the settings it was started with."
        )
    part.copy_(saved)


def _like(value: Tensor, saved: Tensor) -> Tensor:
    """What an optimiser keeps of a parameter: spread as that is, but for the number of its steps."""
    if saved.ndim == 0:
        return saved
    made = torch.zeros_like(value)
    own_part(made).copy_(saved)
    return made.detach()
