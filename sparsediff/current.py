"""What the running thread is inside of: the attention layer, its token layout, its timestep."""

from __future__ import annotations

import threading

from torch import Tensor


class Current(threading.local):
    """Thread-local slots that processors and root hooks set around a call.

    ``handle`` names the attention layer that runs (0-d int64 CPU tensor; None outside of one): a
    tensor and not a number, because torch.compile then makes one graph for all layers instead of one
    per layer. ``layout`` = (frames, height, width, text before, text after) of the running model and
    ``timestep`` its noise level input.
    """

    handle: Tensor | None = None
    layout: tuple[int, ...] = ()
    timestep: Tensor | None = None


CURRENT = Current()
