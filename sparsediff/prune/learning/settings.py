"""LearnSettings: everything that learning masks is asked for, checked before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from sparsediff.distill.training.setting_checks import (
    check_bool,
    check_choice,
    check_named,
    check_real,
    check_whole,
    settings_dict,
    settings_from,
    texts,
)
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.hard_concrete import HardConcrete, Regulariser
from sparsediff.prune.learning.fisher import Along
from sparsediff.prune.structures import KINDS

DISTANCES = ("mse", "rms")
STARTS = ("even", "fisher")
# What may be another when a training goes on; all else would make other masks.
FREE = (
    *("iterations", "heads_learning_rate", "ffn_learning_rate", "blocks_learning_rate"),
    *("schedule", "warmup_iterations", "clip", "precision", "gradient_checkpointing"),
    *("latents_every", "checkpoint_every", "keep_checkpoints"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnSettings:
    """What to learn and how; every field is a flag.

    ``target``: kinds of units that get a logit. ``steps`` of the chain that is compared;
    ``guidance``: scale as diffusers means it, None for the pipeline's; ``call``: arguments of the
    pipeline, which say the size.

    ``iterations`` updates, each of ``accumulation`` times ``batch`` prompts a process, at a rate for
    each kind. The loss is the distance of the final latents, ``distance`` "mse" (mean square) or "rms"
    (its root, EcoDiff's norm), plus ``beta`` times the ``regulariser`` ("l0", "l1", "bounded-l1"; see
    `HardConcrete.penalty`), mean over the layers of each kind. ``clip``: largest norm of all gradients.
    ``latents_every``: of the chain's latents so many are kept as one in n, see `sample_chain`;
    ``gradient_checkpointing``: the model's own, in addition.

    ``initial_logit``, ``damping``: of the gates. ``start`` "even": all alike; "fisher": by the ranks of
    `fisher_information` of ``fisher_draws`` samples along ``fisher_along``, ``start_spread`` between
    the first and the last.

    Raises SparseError for a value out of range.
    """

    target: tuple[str, ...] = ("heads", "ffn")
    steps: int = 20
    guidance: float | None = None
    call: Mapping[str, Any] = field(default_factory=dict)

    iterations: int = 100
    batch: int = 1
    accumulation: int = 4
    heads_learning_rate: float = 0.1
    ffn_learning_rate: float = 0.1
    blocks_learning_rate: float = 0.1
    schedule: str = "constant_with_warmup"
    warmup_iterations: int = 10
    clip: float = 1.0
    distance: str = "mse"
    beta: float = 0.5
    regulariser: Regulariser = "l0"
    initial_logit: float = 3.0
    damping: float = 0.5
    start: str = "even"
    fisher_draws: int = 40
    fisher_along: Along = "both"
    start_spread: float = 6.0

    precision: str = "no"
    latents_every: int = 2
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint_every: int = 10
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", texts("target", self.target))
        for kind in self.target:
            check_choice("target", kind, KINDS)
        if not self.target or len({*self.target}) < len(self.target):
            raise SparseError(
                f"target={self.target!r}: needs some of {', '.join(KINDS)}, once each."
            )
        check_bool("gradient_checkpointing", self.gradient_checkpointing)
        check_named("call", self.call)
        for name, least in _COUNTS.items():
            check_whole(name, getattr(self, name), least=least)
        for name, (low, high) in _RANGES.items():
            check_real(name, getattr(self, name), low, high, optional=name == "guidance")
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)

    @property
    def shard(self) -> bool:
        """Never: every process has the whole model, whose weights do not change."""
        return False

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates by the beginning of structures' keys."""
        return {f"{kind}/": getattr(self, f"{kind}_learning_rate") for kind in self.target}

    @property
    def draws_first(self) -> int:
        """Samples that are looked at before the first iteration."""
        return self.fisher_draws if self.start == "fisher" else 0

    @property
    def relaxation(self) -> HardConcrete:
        """What makes gates of logits."""
        return HardConcrete(damping=self.damping)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> LearnSettings:
        """Read what `to_dict` gave; `source` names it in errors."""
        return settings_from(cls, values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return settings_dict(self)


_COUNTS = {
    "steps": 1,
    "iterations": 1,
    "batch": 1,
    "accumulation": 1,
    "warmup_iterations": 0,
    "fisher_draws": 1,
    "latents_every": 1,
    "seed": 0,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
}
_RANGES: dict[str, tuple[float, float]] = {
    "guidance": (0.0, 100.0),
    "heads_learning_rate": (0.0, 10.0),
    "ffn_learning_rate": (0.0, 10.0),
    "blocks_learning_rate": (0.0, 10.0),
    "clip": (1e-8, 1e8),
    "beta": (0.0, 1e4),
    "initial_logit": (-20.0, 20.0),
    "damping": (0.0, 100.0),
    "start_spread": (0.0, 40.0),
}
_CHOICES = {
    "schedule": ("constant", "constant_with_warmup", "cosine", "linear"),
    "distance": DISTANCES,
    "start": STARTS,
    "fisher_along": get_args(Along),
    "regulariser": get_args(Regulariser),
    "precision": ("no", "fp16", "bf16"),
}
