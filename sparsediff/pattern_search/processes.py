"""Processes: the prompts of a search divided among the processes of a launch."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

# The others wait for the slowest prompt of a pass; the usual limit of half an hour is too short.
_LONGEST_WAIT = timedelta(days=7)


class Processes:
    """This process and the others that `torchrun` or `accelerate launch` started, if any.

    ``count`` of them, ``index`` of this one. They share the run folder, so it has to lie where all of
    them see it.
    """

    def __init__(self, device: str | None) -> None:
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            joined = torch.distributed.is_initialized()
            on_cpu = device is not None and device.startswith("cpu")
            self._state = PartialState(cpu=on_cpu, timeout=_LONGEST_WAIT)
            if not joined:  # by the caller, whose group it is
                atexit.register(self._state.destroy_process_group)
        self.count: int = self._state.num_processes if self._state else 1
        self.index: int = self._state.process_index if self._state else 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the settings, the lock and the plan."""
        return self.index == 0

    def device(self, device: str) -> str:
        """`device`, and among several GPUs the one of this process."""
        if self._state is None or device != "cuda":
            return device
        return str(self._state.device)

    def share(self, items: Sequence[int]) -> list[int]:
        """The part of `items` that this process does."""
        if self._state is None:
            return list(items)
        with self._state.split_between_processes(list(items)) as part:
            return list(part)

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self._state is not None:
            self._state.wait_for_everyone()
