"""Distillations of a tiny Wan: a few seconds each, sparse enough that blocks are left out."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from tiny_pipelines import wan

from sparsediff.distill.acceleration import accelerator_for
from sparsediff.distill.distillation import Distillation
from sparsediff.distill.settings import DistillSettings
from sparsediff.session import Session

PROMPTS = ("a red circle", "a blue ring", "a green box")
LAYERS = 2
_HANGS = 124  # as `timeout` says it
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


def forget_accelerate() -> None:
    """What accelerate keeps for the whole process, which another Accelerator would be held to."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


def training_of(out: Path, *, resume: str | None = None, **changes: Any) -> Distillation:
    """A training in a folder, as the command line makes it."""
    forget_accelerate()
    settings = settings_of(**changes)
    accelerator = accelerator_for(settings, out / "training", cpu=True)
    pipe = wan(layers=LAYERS)
    pipe.set_progress_bar_config(disable=True)
    return Distillation(pipe, PROMPTS, settings, accelerator, out, resume=resume)


def weights_of(training: Distillation) -> dict[str, torch.Tensor]:
    """Copies of everything that is trained, and of the averages."""
    roles = training.setup.roles
    found = {
        f"{role}.{name}": value.detach().clone()
        for role in ("student", "fake")
        for name, value in roles.parameters(role).items()
    }
    kept = training.averages.kept
    averages = [] if kept is None else kept.shadow_params
    return found | {f"average.{i}": value.clone() for i, value in enumerate(averages)}


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


def in_processes(work: Callable[[int], None], count: int = 1) -> list[int]:
    """Run `work` in forked processes, which spares their imports; returns the exit codes.

    Several of them find each other as torchrun's would, over gloo. One that hangs says where on stderr.
    """
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def main(rank: int) -> None:
        faulthandler.dump_traceback_later(150)
        torch.set_num_threads(1)  # the parent's threads do not exist here
        if count > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
            }
        forget_accelerate()
        work(rank)

    started = [context.Process(target=main, args=(rank,)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(180)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()  # those that wait for one that is gone
        process.join()
    return [_HANGS if code is None else code for code in codes]
