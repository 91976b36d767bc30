"""What the configs of a pipeline say without its weights: empty modules, arguments by default."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsediff.generation import GenerationRecipe
from sparsediff.model_files import ModelFiles


def skeletons(files: ModelFiles) -> dict[str, nn.Module]:
    """The parts of a pipeline as modules without storage, built from their configs."""
    found = {}
    for name, entry in files.index().items():
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            continue
        cls = _class(*entry)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            continue
        config = files.read(f"{name}/config.json", required=False)
        if config is None:
            continue
        with torch.device("meta"):
            if hasattr(cls, "from_config"):  # diffusers
                found[name] = cls.from_config(config)
            else:  # transformers
                found[name] = cls(cls.config_class.from_dict(config))  # type: ignore[attr-defined]
    return found


def _class(library: str, name: str) -> Any:
    """The class of a component; None when its library is not installed (Cosmos' guardrail)."""
    from diffusers import pipelines

    module = getattr(pipelines, library, None)  # parts of a pipeline's own, such as LTX-2's vocoder
    try:
        return getattr(module or importlib.import_module(library), name, None)
    except ModuleNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class CallDefaults:
    """Arguments of a call in which the user gives none: the recipe's, else the pipeline's defaults."""

    pipeline: str
    recipe: GenerationRecipe
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, files: ModelFiles, recipe: GenerationRecipe) -> CallDefaults:
        """From the recipe and the signature of the pipeline class that `files` names."""
        import diffusers

        name = str(files.index().get("_class_name"))
        pipeline = getattr(diffusers, name, None)
        signature = inspect.signature(pipeline.__call__).parameters if pipeline else {}
        defaults = {k: p.default for k, p in signature.items() if p.default is not p.empty}
        return cls(pipeline=name, recipe=recipe, defaults=defaults)

    def whole(self, name: str, otherwise: int) -> int:
        """The whole number that an argument is by default; `otherwise` when nobody says."""
        return int(self.recipe.call.get(name) or self.defaults.get(name) or otherwise)
