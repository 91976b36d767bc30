"""What the running thread is inside of: the marked attention layer, if any."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from torch import Tensor


class Place:
    """The inputs of the model that runs, as its root hook found them.

    ``layout`` a `sparsediff.models.Layout`; ``sizes`` the same as an int64 CPU tensor, or None while
    the model's own forward is compiled: torch.compile makes a graph for each number that it finds in
    a module, and one for all values of a tensor; ``positions`` the input with every token's
    coordinates, for models that have one; ``timestep`` the noise level input; ``text`` as in
    `ModelFacts`. One for each model; a plain object, because torch.compile follows writes to it.
    """

    def __init__(self) -> None:
        self.layout: tuple[int, ...] = ()
        self.sizes: Tensor | None = None
        self.positions: Tensor | None = None
        self.timestep: Tensor | None = None
        self.text = "none"


@dataclass(eq=False, slots=True)
class Mark:
    """What a marked processor carries: ``handle`` names the layer, ``place`` is its model's.

    The handle is a 0-d int64 CPU tensor and not a number: torch.compile then makes one graph for all
    layers instead of one per layer. ``parts`` counts how often the processor call under way came to the
    wrapped attention function with keys of its own tokens; ``foreign`` says whether it did with others.
    """

    handle: Tensor
    place: Place
    parts: int = 0
    foreign: bool = False


class Current(threading.local):
    """The mark whose processor runs in this thread; None outside of one."""

    def __init__(self) -> None:
        # Set for every thread, not on the class: torch.compile guards on the instance's own slots.
        self.mark: Mark | None = None


CURRENT = Current()
