"""Trainings in processes of their own: two that share the work, and ones that are killed.

They are forked from a server that imported everything once and computed nothing: a process forked from
the tests' own may hang on locks that threads held.
"""

from __future__ import annotations

import errno
import faulthandler
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_training import forget_accelerate, training_of, watched, weights_of

from sparsediff.distill.training import checkpoints
from sparsediff.distill.training.checkpoints import Checkpoints
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.learner import Learner
from sparsediff.distill.training.sharding import own_part, whole
from sparsediff.distill.training.trainer import Trainer
from sparsediff.distill.training.training_log import TrainingLog
from sparsediff.kernels.errors import SparseError

_HANGS = 124  # as `timeout` says it
_SECONDS = 180


def in_processes(work: Callable[..., Any], *given: Any, count: int = 1, **words: Any) -> list[int]:
    """Run a function of this module in `count` processes that talk over gloo; the exit codes.

    It is called with its process's number first.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=_process, args=(rank, count, port, work, given, words))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(_SECONDS)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()  # those that wait for one that is gone
        process.join()
    return [_HANGS if code is None else code for code in codes]


def _process(
    rank: int, count: int, port: int, work: Any, given: tuple[Any, ...], words: dict[str, Any]
) -> None:
    faulthandler.dump_traceback_later(_SECONDS - 30)
    torch.set_num_threads(1)
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
    work(rank, *given, **words)


def killed_in_an_iteration(rank: int, out: Path) -> None:
    """Dies in its third iteration, after the fake's update."""
    update = Trainer._update

    def killed(self: Trainer, role: Any, parts: Any, loss_of: Any) -> Any:
        if self.iteration == 2 and role == "student":
            signal.raise_signal(signal.SIGKILL)
        return update(self, role, parts, loss_of)

    Trainer._update = killed  # type: ignore[method-assign]
    training_of(out).run()


def killed_in_a_checkpoint(rank: int, out: Path) -> None:
    """Goes on, and dies while it writes its next checkpoint."""
    training = training_of(out, resume="latest")
    hooks = training.accelerator._save_model_state_pre_hook

    def killed(*args: Any) -> None:
        training.checkpoints._save_weights(*args)
        signal.raise_signal(signal.SIGKILL)

    for key in hooks:
        hooks[key] = killed
    training.run()


def killed_after_a_checkpoint(rank: int, out: Path, **changes: Any) -> None:
    """Dies when iteration 2 is written."""
    save = Checkpoints.save

    def last(self: Checkpoints, iteration: int) -> Any:
        path = save(self, iteration)
        if iteration == 2:
            signal.raise_signal(signal.SIGKILL)
        return path

    Checkpoints.save = last  # type: ignore[method-assign]
    training_of(out, **changes).run()


def gone_on(rank: int, folder: Path, out: Path, **changes: Any) -> None:
    """Resumes, or starts, and trains to the end; writes where it began and what became of it."""
    training = training_of(out, resume="latest", **changes)
    done = training.trainer.iteration
    training.run()
    training.save()
    torch.save((done, weights_of(training)), folder / f"{rank}.pt")


def trained(out: Path, **changes: Any) -> dict[str, Any]:
    """Two iterations: gradients of the first by role, what was trained, how often it ran sparse."""
    gradients: dict[str, torch.Tensor] = {}
    training = training_of(out, iterations=2, checkpoint_every=0, warmup_iterations=0, **changes)
    update = Learner.update

    def noted(self: Learner, accelerator: Any) -> float:
        for role, learner in training.trainer.learners.items():
            if learner is self and training.trainer.iteration == 0:
                for name, value in training.setup.roles.parameters(role).items():
                    if value.grad is not None:
                        gradients[f"{role}.{name}"] = whole(value.grad).clone()
        return update(self, accelerator)

    started = weights_of(training)
    Learner.update = noted  # type: ignore[method-assign]
    try:
        with watched(training) as counts:
            training.run()
    finally:
        Learner.update = update  # type: ignore[method-assign]
    return {
        "processes": training.accelerator.num_processes,
        "held": _held(training),
        "gradients": gradients,
        "started": started,
        "weights": weights_of(training),
        "sparse": {role: counts[role, "left out"] for role in ("student", "fake", "teacher")},
    }


def _held(training: Distillation) -> float:
    """The share of the student's model, frozen weights and all, that this process holds."""
    values = list(training.setup.roles.trained("student").parameters())
    return sum(own_part(v).numel() for v in values) / sum(v.numel() for v in values)


def full_disk_in_the_first(rank: int, folder: Path, out: Path, place: str) -> None:
    """What each says when only process 0 cannot write."""
    training = training_of(out, iterations=2, checkpoint_every=1)

    def full(*args: Any, **words: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if rank == 0 and place == "checkpoint":
        checkpoints.save_file = full  # type: ignore[assignment]
    if rank == 0 and place == "log":
        TrainingLog.note = full  # type: ignore[method-assign]
    try:
        training.run()
        said = "nothing"
    except (SparseError, OSError) as error:
        said = str(error)
    (folder / f"{rank}.txt").write_text(said)


def trained_by_several(rank: int, folder: Path, out: Path, **changes: Any) -> None:
    """What `trained` returns, in a file."""
    torch.save(trained(out, **changes), folder / f"{rank}.pt")


def nan_in_the_second(rank: int, folder: Path, out: Path, where: str) -> None:
    """A NaN that only process 1 has, in its second iteration; what each says and has then."""
    training = training_of(out, iterations=3, checkpoint_every=1)
    update = Trainer._update

    def planted(self: Trainer, role: Any, parts: Any, loss_of: Any) -> Any:
        if self.iteration == 1 and role == "student" and rank == 1:
            if where == "loss":
                return update(self, role, parts, lambda part: loss_of(part) * torch.nan)
            for value in training.setup.roles.parameters("student").values():
                value.register_hook(lambda gradient: gradient * torch.nan)
        return update(self, role, parts, loss_of)

    Trainer._update = planted  # type: ignore[method-assign]
    said = ""
    try:
        training.run()
    except SparseError as error:
        said = str(error)
    torch.save((said, weights_of(training)), folder / f"{rank}.pt")
