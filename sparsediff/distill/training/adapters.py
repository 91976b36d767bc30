"""LoRA adapters put on a model that is going to be trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from sparsediff.kernels.errors import SparseError


def add_adapters(
    model: Any,
    names: Sequence[str],
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    seed: int,
) -> None:
    """One adapter of each name on the layers that `targets` names, float32, drawn from `seed`.

    Raises SparseError for a target that is no layer of the model, or none that takes an adapter.
    """
    from peft import LoraConfig

    _check_targets(model, targets)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=True
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(seed)
        # Several adapters are what is wanted here.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        for name in names:
            try:
                model.add_adapter(config, adapter_name=name)
            except ValueError as error:
                raise SparseError(
                    f"No adapter fits {type(model).__name__}: {str(error).strip()} Name layers that it "
                    f"has with --lora-targets."
                ) from error
    for path, value in model.named_parameters():
        if any(f".{name}." in path for name in names):
            value.data = value.data.float()


def _check_targets(model: Any, targets: Sequence[str]) -> None:
    """Each by itself: peft passes over those it does not find, as long as it finds one."""
    paths = [path for path, _ in model.named_modules()]
    missing = [t for t in targets if not any(p == t or p.endswith(f".{t}") for p in paths)]
    if missing or not targets:
        raise SparseError(
            f"{type(model).__name__} has no layer {', '.join(missing) or 'without a name'}. Name some "
            f"that it has with --lora-targets, such as to_q to_v."
        )
