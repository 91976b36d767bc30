"""The model card of a pruned model: README.md with the tags that the Hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import KINDS

_WORDS = {"heads": "attention heads", "ffn": "feed-forward neurons", "blocks": "blocks"}


def pruned_readme(
    target: Any, pruned: Mapping[str, nn.Module], masks: Mapping[str, Masks], *, base: str | None
) -> str:
    """The text of README.md; ``pruned`` and ``masks`` by component, ``base`` the original's Hub id."""
    front = ["---", "library_name: diffusers"]
    if base:
        front += [f"base_model: {json.dumps(base)}", "base_model_relation: finetune"]
    front += ["tags:", "- sparsediff", "- pruning", "---"]
    name = type(target).__name__
    alone = isinstance(target, nn.Module)
    what = f"A {name} that has lost" if alone else f"A {name} whose {' and '.join(pruned)} lost"
    body = [
        "# Pruned model",
        f"{what} units that matter least{f', made from `{base}`' if base else ''}.",
        _use(name, alone=alone, dtype=next(iter(pruned.values())).dtype),
        _table(pruned, masks),
        "`pruning_masks.safetensors`, beside the weights, says which units of the original stayed. It "
        "is not needed to run the model.",
    ]
    return "\n".join(front) + "\n\n" + "\n\n".join(body) + "\n"


def _use(name: str, *, alone: bool, dtype: object) -> str:
    load = f"sparsediff.{name}" if alone else "DiffusionPipeline"
    # Without it diffusers makes its models float32, and transformers leaves its own as they are.
    half = "" if dtype == torch.float32 else f", torch_dtype={dtype}"
    lines = [
        "import sparsediff  # diffusers finds the class of the model there",
        *(["import torch"] if half else []),
        *([] if alone else ["from diffusers import DiffusionPipeline"]),
        "",
        f'{"model" if alone else "pipe"} = {load}.from_pretrained("this folder or its Hub id"{half})',
    ]
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```"


def _table(pruned: Mapping[str, nn.Module], masks: Mapping[str, Masks]) -> str:
    rows = ["## What is left", "", "| part | kept | of |", "|---|---|---|"]
    for name, model in pruned.items():
        label = name or type(model).__name__
        rows.append(f"| {label}: parameters | {_numbers(model):,} | {_numbers_before(model):,} |")
        for kind in KINDS:
            units = [kept for key, kept in masks[name].kept.items() if key.startswith(f"{kind}/")]
            if units:
                stay, total = sum(int(u.sum()) for u in units), sum(u.numel() for u in units)
                rows.append(
                    f"| {label}: {_WORDS[kind]} that masks are for | {stay:,} | {total:,} |"
                )
    return "\n".join(rows)


def _numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _numbers_before(model: Any) -> int:
    """Parameters of the stock model, which is built without storage."""
    whole = {key: value for key, value in model.config.items() if key != "pruning"}
    with torch.device("meta"):
        return _numbers(type(model).from_config(whole))
