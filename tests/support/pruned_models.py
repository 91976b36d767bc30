"""Toy models of every family that can be pruned, with inputs as their pipelines make them, and masks.

Weights that a new model has at zero or one (biases, norms) are random here: a lost bias or an unfolded
norm would not show otherwise.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny_pipelines import FAMILIES
from torch import Tensor, nn

from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import KINDS, Structure, structures_of

# A pipeline for each model class in the tables, and for each kind of block that one can have.
PIPELINES = (
    "wan",
    "wan_i2v",
    "wan_vace",
    "wan_animate",
    "chronoedit",
    "skyreels",
    "hunyuan_video",
    "hunyuan_i2v",
    "hunyuan_video15",
    "framepack",
    "cogvideox",
    "ltx",
    "flux",
    "chroma",
    "sd3",
    "pixart_sigma",
    "stable_diffusion",
    "sdxl",
    "animatediff",
)
_SMALL = dict.fromkeys(("stable_diffusion", "sdxl", "animatediff", "ltx"), 32)  # pixels, for speed
_WAN_TEXT = 512  # its image models take what comes before so many tokens as the picture's


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the arguments of a forward call, and all its structures."""

    model: nn.Module
    batch: dict[str, Any]
    structures: list[Structure]

    def output(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return model(**self.batch, return_dict=False)[0]


class _SeenError(Exception):
    """Ends a pipeline's run once the model's arguments are known."""


@functools.cache
def case_of(name: str) -> Case:
    """The toy model of a tiny pipeline; tests must leave it as it is."""
    family = FAMILIES[name]
    pipe = family.build()
    model = getattr(pipe, "transformer", None) or pipe.unet
    seen: dict[str, Any] = {}

    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        names = inspect.signature(module.forward).parameters
        seen.update(dict(zip(names, arguments, strict=False)) | named)
        raise _SeenError

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    with pytest.raises(_SeenError):
        family.run(
            pipe, **({"height": _SMALL[name], "width": _SMALL[name]} if name in _SMALL else {})
        )
    handle.remove()
    batch = {name: value for name, value in seen.items() if name != "return_dict"}
    if getattr(model.config, "added_kv_proj_dim", None):
        batch["encoder_hidden_states"] = torch.randn(
            1, _WAN_TEXT, batch["encoder_hidden_states"].shape[-1], generator=_generator(5)
        )
    randomise(model)
    return Case(model=model, batch=batch, structures=structures_of(model, KINDS))


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Biases and norms anywhere but at 0 and 1, so that each of them matters."""
    generator = _generator(3)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))


def random_masks(
    structures: list[Structure], seed: int, *, kinds: tuple[str, ...] = KINDS
) -> Masks:
    """Of every four structures of a kind one loses all, one keeps one unit, one all, one about half.

    Blocks lose every third one. Each seed starts the count at another structure.
    """
    generator = _generator(seed)
    kept: dict[str, Tensor] = {}
    for kind in kinds:
        ours = [one for one in structures if one.kind == kind]
        for place, one in enumerate(ours, start=seed):
            kept[one.key] = _stay(one, place, generator)
    return Masks(kept=kept)


def _stay(one: Structure, place: int, generator: torch.Generator) -> Tensor:
    if one.kind == "blocks":
        return torch.tensor([place % 3 > 0])
    half = torch.rand(one.units, generator=generator) < 0.5
    last = torch.arange(one.units) == one.units - 1
    return (torch.zeros_like(half), last, torch.ones_like(half), half)[place % 4]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
