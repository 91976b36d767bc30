"""Checkpoints: a training that was killed goes on as if it had not been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsediff.distill.student.whole_folder import flush
from sparsediff.distill.training.sharding import Shards
from sparsediff.distill.training.shared_failure import shared_failure
from sparsediff.kernels.errors import SparseError

_PREFIX, _STATE, _WEIGHTS = "iteration-", "progress.json", "weights.safetensors"
SCHEMA = "sparsediff.distill-checkpoint/1"
# How a user goes on from the newest checkpoint; other commands than `distill` have another flag.
RESUME = "--resume_from_checkpoint latest"
# What a file that is missing, cut short or of something else makes accelerate, torch and us raise.
_BROKEN = (OSError, ValueError, KeyError, RuntimeError, EOFError, UnpicklingError, SafetensorError)


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder that were written to their end, oldest first."""
    found = folder.glob(f"{_PREFIX}*/{_STATE}")
    return sorted((path.parent for path in found), key=_iteration)


def find_checkpoint(folder: Path, name: str, *, flag: str = RESUME) -> Path:
    """The checkpoint that "latest" or a folder's name means; SparseError when there is none."""
    known = complete_checkpoints(folder)
    if name == "latest" and known:
        return known[-1]
    found = [path for path in known if path.name == Path(name).name]
    if found:
        return found[0]
    there = ", ".join(path.name for path in known) or "none"
    raise SparseError(
        f"There is no checkpoint {name!r} in {folder}; there are: {there}. Leave out "
        f"{flag.split(maxsplit=1)[0]} to start anew in another folder."
    )


class Checkpoints:
    """Folders iteration-000050, ... written whole or not at all; the newest `keep` of them stay.

    accelerate writes optimisers, rates, averages and random states; of the weights only the trained
    ones, `weights` by name, as safetensors. `shards` keeps weights, optimisers and averages where they
    are sharded. `flag` is how a user goes on, for errors.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Any,
        weights: Mapping[str, Tensor],
        shards: Shards | None = None,
        *,
        keep: int,
        flag: str = RESUME,
    ) -> None:
        self.folder, self.accelerator, self.keep = folder, accelerator, keep
        self.weights, self.shards, self.flag = weights, shards, flag
        accelerator.register_save_state_pre_hook(self._save_weights)
        accelerator.register_load_state_pre_hook(self._load_weights)

    def all(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return complete_checkpoints(self.folder)

    def find(self, name: str) -> Path:
        """The checkpoint that "latest" or a folder's name means; SparseError when there is none."""
        return find_checkpoint(self.folder, name, flag=self.flag)

    def way_back(self) -> str:
        """What to do after a training has diverged, for an error."""
        known = self.all()
        if not known:
            return (
                "There is no checkpoint yet. Start anew with lower learning rates, or a precision of "
                "more range."
            )
        return (
            f"The last good checkpoint is {known[-1]}: go on from it with {self.flag} and lower "
            f"learning rates."
        )

    def save(self, iteration: int) -> Path:
        """Write a checkpoint; the older ones stay if that fails, the oldest go if it does not.

        Those of later iterations go too: they belong to a training that was gone back from. Raises
        SparseError when the disk is full or the folder cannot be written.
        """
        target = self.folder / f"{_PREFIX}{iteration:06d}"
        partial = self.folder / f".{target.name}.partial"
        main = self.accelerator.is_main_process
        try:
            with shared_failure(self.accelerator):
                if main:
                    self._make_room(partial)
            with shared_failure(self.accelerator):
                self.accelerator.save_state(str(partial))
            with shared_failure(self.accelerator):
                if main:
                    self._complete(partial, target, iteration)
        # torch.save turns a full disk into a RuntimeError, safetensors into its own.
        except (OSError, RuntimeError, SafetensorError, SparseError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            last = self.all()
            kept = f"The last good one is {last[-1]}" if last else "There is none yet"
            raise SparseError(
                f"The checkpoint of iteration {iteration} could not be written: {error}. {kept}. Make "
                f"room, then go on with {self.flag}."
            ) from error
        return target

    def _make_room(self, partial: Path) -> None:
        for left in self.folder.glob(f".{_PREFIX}*.partial"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)

    def _complete(self, partial: Path, target: Path, iteration: int) -> None:
        state = {"schema": SCHEMA, "iteration": iteration}
        (partial / _STATE).write_text(json.dumps(state) + "\n")
        flush(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
        self._prune(iteration)

    def load(self, path: Path) -> int:
        """Put everything back as it was; returns the iterations that were done."""
        try:
            state = json.loads((path / _STATE).read_text())
            if state.get("schema") != SCHEMA:
                raise SparseError(f"{path} is not a checkpoint of this version; needs {SCHEMA!r}.")
            self.accelerator.load_state(str(path))
            return int(state["iteration"])
        except _BROKEN as error:
            if isinstance(error, SparseError):
                raise
            others = ", ".join(p.name for p in self.all() if p != path) or "none"
            raise SparseError(
                f"{path} cannot be loaded: {error} It is damaged, or of another training. Resume from "
                f"another by its name; there are: {others}."
            ) from error

    def _prune(self, newest: int) -> None:
        """Leave the newest `keep` up to the one just written."""
        known = self.all()
        past = [path for path in known if _iteration(path) <= newest]
        for path in {*known} - {*past[-self.keep :]}:
            shutil.rmtree(path)

    def _save_weights(self, models: list[Any], weights: list[Any], folder: str) -> None:
        weights.clear()  # else accelerate writes the frozen base too
        if self.shards is not None:
            self.shards.save(Path(folder))
        elif self.accelerator.is_main_process:
            values = {n: v.detach().cpu().contiguous() for n, v in self.weights.items()}
            save_file(values, Path(folder) / _WEIGHTS)

    def _load_weights(self, models: list[Any], folder: str) -> None:
        models.clear()
        if self.shards is not None:
            self.shards.load(Path(folder))
            return
        values = load_file(Path(folder) / _WEIGHTS)
        for name, value in self.weights.items():
            saved = values.get(name)
            if saved is None or saved.shape != value.shape:
                raise SparseError(
                    f"{folder} does not fit this training: {name} is "
                    f"{'missing' if saved is None else list(saved.shape)}. Resume with the "
                    f"settings it was started with."
                )
            value.data.copy_(saved)


def _iteration(path: Path) -> int:
    """The iteration in a checkpoint's name; -1 for a folder that somebody named otherwise."""
    number = path.name.removeprefix(_PREFIX)
    return int(number) if number.isdigit() else -1
