"""ModelFacts: what sparsediff has to know of one diffusers model class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Five whole numbers for each grid that the model's attention may see: frames, height, width, tokens
# before, tokens after. A call is on the first grid whose tokens are as many as its own.
Layout = tuple[int, ...]
LayoutRule = Callable[[Any, Mapping[str, Any]], Layout]

REST = -1  # as tokens before or after: whatever the sequence holds beside the grid


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """Where self-attention is in a model, and how its tokens are laid out.

    ``attention``: dotted names of the self-attention modules, with ``*`` for a block number.
    ``layout``: token layout from (model, forward inputs by name); it reads shapes only, so it costs
    nothing on a GPU and can be traced. ``positions``: the input that holds every token's coordinates
    (frame, row, column), where height and width are no shapes.
    ``pipelines``: what people call it by. ``grid_rule``: the layout's name in plan files, which must
    not change. ``text``: where text stands that shares self-attention with the video.
    ``packed``: side of the latent squares that the pipeline packs into a token; ``sides``: pixels that
    width and height have to be multiples of, where the pipeline asks for more than whole tokens.
    ``dense``: what of its self-attention stays dense. ``graphs``: why diffusers' own code does not
    compile into one graph, where it does not.
    """

    model: str
    attention: tuple[str, ...]
    layout: LayoutRule
    pipelines: str
    grid_rule: str
    text: Literal["none", "first", "last"] = "none"
    positions: str = ""
    packed: int = 1
    sides: int = 1
    dense: str = ""
    graphs: str = ""
