"""Pruned models: each stock class of diffusers with one more entry in its config, ``pruning``.

``PrunedWanTransformer3DModel`` is a WanTransformer3DModel that makes itself smaller before any weight
is there, so saving, loading, half precision, shards and the Hub are diffusers' own code. The classes
are found as ``sparsediff.Pruned<stock class>``, by name, which is how diffusers looks for them.
"""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.model_files import read_object
from sparsediff.prune.cutting import cut
from sparsediff.prune.first_units import first_units
from sparsediff.prune.pruning_sizes import PruningSizes
from sparsediff.prune.structures import FAMILIES, KINDS, structures_of

PREFIX = "Pruned"


def pruned_class(name: str) -> Any:
    """The class ``Pruned<stock class>``; None where the tables or diffusers do not have that one."""
    import diffusers

    stock = name.removeprefix(PREFIX)
    if stock == name or not any(stock in family.classes for family in FAMILIES):
        return None
    found: Any = getattr(diffusers, stock, None)
    known = isinstance(found, type) and issubclass(found, nn.Module)
    return _made(found) if known else None


def stock_name(cls: type) -> str:
    """The name of the stock class behind a model's class, pruned or not."""
    return cls.__name__.removeprefix(PREFIX)


def saved_class(folder: Path, cls: type) -> type:
    """`cls` of a pipeline's model, or the Pruned class of it where the model in a folder is one."""
    name = read_object(folder / "config.json").get("_class_name")
    pruned = f"{PREFIX}{stock_name(cls)}"
    return pruned_class(pruned) if name == pruned else cls


def sizes_of(model: nn.Module) -> PruningSizes:
    """What a model's config says of its sizes; empty sizes for a model that is whole.

    Raises SparseError for a broken entry.
    """
    entry = getattr(model, "config", {}).get("pruning")
    return PruningSizes() if entry is None else PruningSizes.read(entry)


def registered(model: nn.Module, sizes: PruningSizes) -> nn.Module:
    """The model itself, cut to `sizes` already, as one of its Pruned class that says so.

    `sizes` are of the stock model. Raises UnsupportedModelError for a model whose class diffusers does
    not have: nothing could load it.
    """
    cls = check_class(model)
    loaded: Any = model
    loaded.__class__ = cls
    defaults = [key for key in loaded.config.get("_use_default_values", ()) if key != "pruning"]
    loaded.register_to_config(pruning=sizes.to_dict(), _use_default_values=defaults)
    return model


def check_class(model: nn.Module) -> type:
    """The Pruned class of a model; UnsupportedModelError where diffusers does not have its class."""
    cls = pruned_class(f"{PREFIX}{stock_name(type(model))}")
    if cls is None or not (type(model) is cls or type(model) in cls.__bases__):
        raise UnsupportedModelError(
            f"{type(model).__module__}.{type(model).__name__} is no class of diffusers, so nothing "
            f"could load what is left of it. Prune a model of the stock class."
        )
    found: type = cls
    return found


@cache
def _made(stock: Any) -> type:
    """A subclass of a stock class: built by that one, then cut to the sizes that its config says."""
    from diffusers.configuration_utils import register_to_config

    # Inside the stock class's own decorator, which would register a config without the entry.
    built = getattr(stock.__init__, "__wrapped__", stock.__init__)

    def __init__(self: Any, *arguments: Any, pruning: Any = None, **named: Any) -> None:
        built(self, *arguments, **named)
        if pruning is None:
            return
        structures = structures_of(self, KINDS)
        with torch.device("cpu"):  # of masks; the model itself may be without storage
            # Weights come later: which units they are of, and what folding did to them, is in them.
            kept = first_units(PruningSizes.read(pruning), structures)
            cut(self, structures, kept, fold_norms=False)

    signature = inspect.signature(built)
    entry = inspect.Parameter("pruning", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    __init__.__signature__ = signature.replace(parameters=[*parameters, entry])  # type: ignore[attr-defined]
    name = f"{PREFIX}{stock.__name__}"
    members = {
        "__init__": register_to_config(__init__),
        "__module__": "sparsediff",  # what a pipeline's model_index.json says and pickle looks up
        "__doc__": f"A {stock.__name__} that has lost heads, neurons or blocks; see docs/pruning.md.",
    }
    made = type(name, (stock,), members)
    _tell_lora_scales(stock.__name__, name)
    return made


def _tell_lora_scales(stock: str, name: str) -> None:
    """Diffusers looks up by the class's name how weights by block become weights by layer."""
    from diffusers.loaders import peft

    known: Any = getattr(peft, "_SET_ADAPTER_SCALE_FN_MAPPING", {})
    if stock in known:
        known[name] = known[stock]
