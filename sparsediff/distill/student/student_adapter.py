"""The LoRA of a student: as tensors to save, and loaded into a pipeline and taken out again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError

WEIGHTS = "pytorch_lora_weights.safetensors"  # as diffusers calls it


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapters:
    """A model's adapters: ``known`` all, ``active`` those chosen, ``off`` whether all are disabled."""

    known: frozenset[str]
    active: tuple[str, ...]
    off: bool

    @classmethod
    def of(cls, model: Any) -> Adapters:
        """Those that a model has."""
        known = frozenset(getattr(model, "peft_config", {}))
        return cls(
            known=known,
            active=tuple(model.active_adapters()) if known else (),
            off=any(getattr(m, "disable_adapters", False) is True for m in model.modules()),
        )

    @property
    def running(self) -> tuple[str, ...]:
        """Those that have an effect."""
        return () if self.off else self.active


def require_peft() -> None:
    """Raise SparseError, with the command that helps, where peft is not installed."""
    if find_spec("peft") is None:
        raise SparseError(
            "A student's LoRA needs peft, which is not installed: pip install 'sparsediff[lora]'."
        )


def adapter_tensors(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """The tensors of an adapter, by peft's names; SparseError if the model does not have it."""
    require_peft()
    from peft.utils import get_peft_model_state_dict

    known = getattr(model, "peft_config", {})
    if adapter not in known:
        raise SparseError(
            f"{type(model).__name__} has no adapter {adapter!r}; it has {', '.join(known) or 'none'}."
        )
    return dict(get_peft_model_state_dict(model, adapter_name=adapter))


def write_adapter(folder: Path, component: str, tensors: Mapping[str, Tensor], config: Any) -> None:
    """Write the file that ``pipe.load_lora_weights(folder)`` reads; `config` is peft's LoraConfig.

    The configuration goes into the file's metadata: without it diffusers takes alpha = rank.
    """
    from diffusers.loaders.lora_base import LoraBaseMixin

    plain = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in config.to_dict().items()
        if key != "base_model_name_or_path"  # a path of the machine it was trained on
    }
    LoraBaseMixin.write_lora_layers(
        {f"{component}.{name}": value.contiguous() for name, value in tensors.items()},
        save_directory=str(folder),
        is_main_process=True,
        weight_name=WEIGHTS,
        save_function=None,
        safe_serialization=True,
        lora_adapter_metadata={f"{component}.{key}": value for key, value in plain.items()},
    )


def load_adapter(pipe: Any, component: str, folder: Path, name: str) -> Adapters:
    """Load a student's LoRA beside the adapters that are there; returns how those were.

    Adapters that the user has switched off stay without effect. Raises SparseError, with the model as
    it was, when the loader refuses it.
    """
    require_peft()
    from safetensors import SafetensorError

    model = getattr(pipe, component)
    before = Adapters.of(model)
    if name in before.known:
        raise SparseError(
            f"{type(model).__name__} has an adapter {name!r} already; choose another adapter_name."
        )
    try:
        _load(pipe, model, component, folder, name)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        if not before.known:
            model.unload_lora()
        raise SparseError(f"{WEIGHTS} could not be loaded into {component}: {error}") from error
    if name not in getattr(model, "peft_config", {}):
        raise SparseError(f"{WEIGHTS} holds nothing for {component}: it is another LoRA's file.")
    if before.off:  # a layer that has one of them would leave the student's part out
        model.enable_adapters()
    model.set_adapter([*before.running, name])
    return before


def _load(pipe: Any, model: Any, component: str, folder: Path, name: str) -> None:
    if component in getattr(pipe, "_lora_loadable_modules", ()):
        pipe.load_lora_weights(str(folder), weight_name=WEIGHTS, adapter_name=name)
    elif hasattr(model, "load_lora_adapter"):
        model.load_lora_adapter(
            str(folder), weight_name=WEIGHTS, prefix=component, adapter_name=name, _pipeline=pipe
        )
    else:
        raise ValueError(f"{type(model).__name__} takes no LoRA.")


def remove_adapter(model: Any, name: str, before: Adapters) -> None:
    """Take a student's LoRA out; the model's other adapters are what they were `before`."""
    if set(model.peft_config) == {name}:
        model.unload_lora()
        return
    model.delete_adapters(name)
    if before.active:
        model.set_adapter(list(before.active))
    if before.off:
        model.disable_adapters()
