"""Contestants: the dense and sparse passes that meet in one round, each with its own check."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

Pass = Literal["forward", "backward", "mass", "search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One kernel doing one thing.

    ``run`` computes, ``check`` says how far its result is from float64 as a share of what is allowed;
    ``flop`` it does; ``density`` realised; ``layout`` of its tensors, "bshd" as diffusers has them or
    "bhsd". ``baseline`` marks those whose fastest the others are compared with; ``ours`` those whose
    outputs start as NaN when they are checked.
    """

    kernel: str
    of: Pass
    density: float
    flop: float
    run: Callable[[], Any]
    check: Callable[[Any], float]
    layout: str = "bshd"
    baseline: bool = False
    ours: bool = False

    def error(self) -> float:
        """Run once and check; the first run may compile."""
        if not self.ours:
            return self.check(self.run())
        with poisoned():
            found = self.run()
        return self.check(found)


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, memory that torch allocates holds NaN, so that an element not written is found."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of operators that are not deterministic
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
