"""Structure: like units of one layer (heads, neurons, a block) and the weights that are theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["heads", "ffn", "blocks"]
Side = Literal["out", "in"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A unit's part of one linear layer: ``width`` places a unit, from place ``start`` on.

    ``side`` "out": rows of the weight and places of the bias; "in": columns. Unit u has the places
    ``start + u * width`` up to ``start + (u + 1) * width``. ``module`` is the layer's path.
    """

    module: str
    side: Side
    width: int
    start: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedNorm:
    """An RMS norm over the places of all units at once (Wan): a lost unit changes all others' values.

    So a mask must act before the norm, and cutting folds the changed mean into weight and eps.
    """

    module: str
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """A number that a module keeps of its units: ``attribute`` is units times ``per_unit``."""

    module: str
    attribute: str
    per_unit: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """``units`` like units of the module at ``path``; a mask holds one value for each.

    ``cuts`` on side "in" are where a mask acts: what a unit passes on is multiplied there.
    Heads only: ``attention`` is the attention's path; ``returns`` "one" tensor, or "pair" for joint
    attention, which returns that of the text too; ``rotary`` the attention's argument whose rotary
    embedding has places of its own for every head (LTX). Blocks only: ``inputs`` are the names of the
    arguments that the block's outputs continue, in the order of its outputs.
    """

    kind: Kind
    path: str
    units: int
    cuts: tuple[Cut, ...] = ()
    norms: tuple[SharedNorm, ...] = ()
    counts: tuple[Count, ...] = ()
    attention: str = ""
    returns: Literal["one", "pair"] = "one"
    rotary: str = ""
    inputs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in masks and files, such as ``heads/blocks.0.attn1``."""
        return f"{self.kind}/{self.path}"
