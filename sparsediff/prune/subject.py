"""Subject: the model that a criterion scores, and what it may use to do so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.structures import Structure


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Subject:
    """``model``, unchanged by scoring, and those of its ``structures`` that are scored.

    ``pipe``: the pipeline it is in, None where there is only a model folder; ``prompts`` and ``call``,
    the pipeline's other arguments, for criteria that run it, prompt n with seed ``seed + n``.
    ``folder`` is for what a criterion that learns keeps while it does, ``resume`` the checkpoint there
    that it goes on from, or "latest". ``progress`` is told how many of how many rounds are done.
    """

    model: nn.Module
    structures: Sequence[Structure]
    pipe: Any = None
    prompts: Sequence[str] = ()
    call: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    folder: Path | None = None
    resume: str | None = None
    progress: Callable[[int, int], None] = lambda done, of: None

    def check_prompts(self, who: str) -> None:
        """Raises SparseError, naming criterion `who`, unless the pipeline can be run over prompts."""
        if not callable(self.pipe) or isinstance(self.pipe, nn.Module):
            raise SparseError(
                f"{who} looks at the model while its pipeline runs, but there is only "
                f"{type(self.model).__name__}: no text encoder, no scheduler. Give the folder of the "
                f"whole pipeline, or choose a criterion that needs none: magnitude, random."
            )
        if not self.prompts:
            raise SparseError(f"{who} needs prompts to run the pipeline over; give a file of them.")
