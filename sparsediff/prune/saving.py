"""Saving a pruned model or pipeline with where it came from: its masks and a model card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sparsediff.distill.student.whole_folder import whole_folder
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import read_object
from sparsediff.plans.model_card import is_on_hub
from sparsediff.prune.masks import Masks
from sparsediff.prune.origin import check_masks
from sparsediff.prune.pruned_folder import MASKS, MODEL, PIPELINE, check_place
from sparsediff.prune.pruned_model import sizes_of
from sparsediff.prune.pruned_readme import pruned_readme

README = "README.md"
_CONFIGS = (MODEL, PIPELINE, "scheduler_config.json")
_WEIGHTS = "diffusion_pytorch_model*"
_ORIGIN = "_name_or_path"


def save_pruned(
    folder: str | os.PathLike[str],
    target: Any,
    masks: Masks | Mapping[str, Masks],
    *,
    base: str | None = None,
) -> None:
    """Write a pruned model or the pipeline it is in, all of it or nothing, to be loaded by diffusers.

    ``masks``: which units of the original stay (see `original_masks` for a model pruned twice); of a
    pipeline by component, or for the only one that was pruned. They are written beside the weights as
    pruning_masks.safetensors; nothing reads them to load the model. ``base``: Hub id of the original,
    by default where diffusers loaded it from. A pruned model that was there is replaced, other files
    stay.

    Raises SparseError when nothing was pruned, masks keep other numbers of units than the model has
    (which units they are cannot be told from it), it has LoRAs, or the folder cannot be written or
    holds a model that is not pruned, which is untouched then.
    """
    path = Path(folder).expanduser()
    pruned = _pruned_parts(target)
    given = _by_component(masks, pruned)
    for name, model in pruned.items():
        check_masks(model, given[name], where=name)
    base = str(base or target.config.get(_ORIGIN))  # diffusers keeps a Path as it is
    readme = pruned_readme(target, pruned, given, base=base if is_on_hub(base) else None)
    alone = isinstance(target, nn.Module)
    check_place(path, alone=alone)
    old = [file.name for file in path.glob(_WEIGHTS)] if alone else []
    with whole_folder(path, last=MODEL if alone else PIPELINE, old=old) as scratch:
        target.save_pretrained(scratch, safe_serialization=True)
        for name in pruned:
            given[name].save(scratch / name / MASKS)
        _leave_out_paths(scratch)
        (scratch / README).write_text(readme, encoding="utf-8")


def _pruned_parts(target: Any) -> dict[str, nn.Module]:
    """The pruned models of a pipeline by component; a bare model has the name ""."""
    models = {"": target} if isinstance(target, nn.Module) else target.components
    found = {
        name: model
        for name, model in models.items()
        if isinstance(model, nn.Module) and hasattr(model, "config") and _is_pruned(model)
    }
    if not found:
        raise SparseError(
            f"This {type(target).__name__} holds no pruned model. Put what `remove` gives back into "
            f"it first, such as pipe.transformer = remove(pipe.transformer, masks)."
        )
    for name, model in found.items():
        adapters: Any = getattr(model, "peft_config", None)
        if adapters:
            raise SparseError(
                f"{name or type(model).__name__} has LoRAs ({', '.join(adapters)}), whose "
                f"wrappers cannot be saved with it. Unload them (pipe.unload_lora_weights()), after "
                f"fusing them if they are to stay; save a LoRA by itself."
            )
    return found


def _is_pruned(model: Any) -> bool:
    return isinstance(model.config, Mapping) and bool(sizes_of(model))


def _by_component(
    masks: Masks | Mapping[str, Masks], pruned: Mapping[str, Any]
) -> dict[str, Masks]:
    if isinstance(masks, Masks):
        masks = dict.fromkeys(list(pruned)[:1], masks)
    if not isinstance(masks, Mapping) or not all(isinstance(x, Masks) for x in masks.values()):
        raise SparseError("save_pruned needs Masks, or a mapping of components to Masks.")
    if set(masks) != set(pruned):
        raise SparseError(
            f"masks are given for {', '.join(masks) or 'nothing'}; {', '.join(pruned)} are pruned. "
            f"Give the masks of each by its name in the pipeline."
        )
    return dict(masks)


def _leave_out_paths(folder: Path) -> None:
    """Configs without the folders of this machine that their models were loaded from."""
    for path in folder.rglob("*.json"):
        if path.name in _CONFIGS:
            values = read_object(path)
            if _ORIGIN in values and not is_on_hub(values[_ORIGIN]):
                del values[_ORIGIN]
                text = json.dumps(values, indent=2, sort_keys=True)
                path.write_text(f"{text}\n", encoding="utf-8")
