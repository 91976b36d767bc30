"""ModelFacts: what sparsediff has to know of one diffusers model class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Five whole numbers for each grid that the model's attention may see: frames, height, width, tokens
# before, tokens after. A call is on the first grid whose tokens are as many as its own.
Layout = tuple[int, ...]
Sides = tuple[int, int, int]  # tokens along frames, height and width
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
    Its length is `texts` times the prompt's longest (encoders whose texts stand in a row), and
    `more_text` on top.
    ``beside``: tokens that a grid has beside it and the prompt, for pipelines that add them unasked.
    ``packed``: side of the latent squares that the pipeline packs into a token; ``sides``: pixels that
    width and height have to be multiples of, where the pipeline asks for more than whole tokens.
    ``frames_in``: the pipeline's argument for the number of frames; ``whole_frames``: the first latent
    is of as many frames as the others, not of one; ``unpredicted``: why its sequence cannot be told
    from a size. ``dense``: what of its self-attention stays dense. ``graphs``: why diffusers' own
    code does not compile into one graph, where it does not.
    """

    model: str
    attention: tuple[str, ...]
    layout: LayoutRule
    pipelines: str
    grid_rule: str
    text: Literal["none", "first", "last"] = "none"
    texts: int = 1
    more_text: int = 0
    positions: str = ""
    packed: int = 1
    sides: int = 1
    beside: Callable[[Sides], int] | None = None
    frames_in: str = "num_frames"
    whole_frames: bool = False
    unpredicted: str = ""
    dense: str = ""
    graphs: str = ""
