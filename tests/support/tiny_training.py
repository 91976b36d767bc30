"""Distillations of a tiny Wan: a few seconds each, sparse enough that blocks are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fresh_accelerate import forget_accelerate
from tiny_pipelines import wan

from sparsediff.distill.training.acceleration import accelerator_for
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.sharding import whole
from sparsediff.session import Session

PROMPTS = ("a red circle", "a blue ring", "a green box")
LAYERS = 2
# 3 x 4 x 4 tokens in 6 blocks, of which a row computes half.
SPARSE = {"name": "blade-asa", "density": 0.5, "block_size": 8, "sample_tokens": 4}
CALL = {
    "height": 64,
    "width": 64,
    "num_frames": 9,
    "guidance_scale": 4.0,
    "max_sequence_length": 16,
}


def settings_of(**changes: Any) -> DistillSettings:
    """Two steps, LoRAs of rank 2, rates at which a few iterations change a lot."""
    given: dict[str, Any] = {
        "steps": 2,
        "call": CALL,
        "method": SPARSE,
        "iterations": 4,
        "lora_rank": 2,
        "lora_alpha": 2.0,
        "learning_rate": 1e-2,
        "fake_learning_rate": 2e-2,
        "warmup_iterations": 2,
        "checkpoint_every": 2,
    }
    return DistillSettings(**(given | changes))


def training_of(
    out: Path,
    *,
    pipe: Any = None,
    resume: str | None = None,
    start_from: Path | None = None,
    **changes: Any,
) -> Distillation:
    """A training in a folder, as the command line makes it."""
    forget_accelerate()
    settings = settings_of(**changes)
    accelerator = accelerator_for(settings, out / "training", cpu=True)
    pipe = pipe or wan(layers=LAYERS)
    pipe.set_progress_bar_config(disable=True)
    return Distillation(
        pipe, PROMPTS, settings, accelerator, out, resume=resume, start_from=start_from
    )


def weights_of(training: Distillation) -> dict[str, torch.Tensor]:
    """Copies of everything that is trained, and of the averages."""
    roles = training.setup.roles
    found = {
        f"{role}.{name}": whole(value).clone()
        for role in ("student", "fake")
        for name, value in roles.parameters(role).items()
    }
    kept = training.averages.kept
    averages = [] if kept is None else kept.shadow_params
    return found | {f"average.{i}": whole(value).clone() for i, value in enumerate(averages)}


@contextmanager
def watched(training: Distillation) -> Iterator[Counter[tuple[str, str]]]:
    """Counts (role, what) of the attention calls: "sparse", "left out" some blocks, "dense"."""
    counts: Counter[tuple[str, str]] = Counter()
    roles, before = training.setup.roles, Session.ran_sparse
    playing, now = type(roles).playing, ["nobody"]

    @contextmanager
    def noted_playing(self: Any, role: Any) -> Iterator[Any]:
        with playing(self, role) as model:
            outer, now[0] = now[0], role
            session = getattr(self, "session", None)
            counts[role, "paused" if session is not None and session.paused else "on"] += 1
            try:
                yield model
            finally:
                now[0] = outer

    def ran_sparse(self: Session, call: Any, mask: Any, backend: str) -> None:
        counts[now[0], "sparse"] += 1
        counts[now[0], "left out"] += int(mask.density < 1)
        before(self, call, mask, backend)

    type(roles).playing = noted_playing  # type: ignore[method-assign]
    Session.ran_sparse = ran_sparse  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        type(roles).playing = playing  # type: ignore[method-assign]
        Session.ran_sparse = before  # type: ignore[method-assign]
