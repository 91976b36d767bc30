"""Launch: one kernel call, complete before it runs, so that it can be compiled without a GPU too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """A Triton kernel with everything it is started with.

    ``kernel`` a ``triton.jit`` function; ``grid`` its programs; ``arguments`` its run-time
    arguments by name, in the order in which it declares them; ``constants`` its ``tl.constexpr``
    parameters; ``warps`` per program and ``stages`` of software pipelining; ``scratch``: it makes
    tensor descriptors on the device, which need memory. Built from real tensors it runs; built from
    tensors on the meta device it is what the compile gate compiles.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int
    scratch: bool = False

    def run(self) -> None:
        """Start the kernel on the current stream of its tensors' device."""
        if self.scratch:
            # Triton asks for memory through a context variable; ours stays inside this call.
            copy_context().run(self._start_with_scratch)
        else:
            self._start()

    def _start_with_scratch(self) -> None:
        import triton

        triton.set_allocator(_allocate)
        self._start()

    def _start(self) -> None:
        with self._device():
            self.kernel[self.grid](
                **self.arguments,
                **self.constants,
                num_warps=self.warps,
                num_stages=self.stages,
                enable_fp_fusion=True,  # Triton 3.10 stops fusing multiply and add unless told to
            )

    def _device(self) -> AbstractContextManager[Any]:
        for value in self.arguments.values():
            if isinstance(value, Tensor) and value.is_cuda:
                return torch.cuda.device(value.device)
        return nullcontext()


def _allocate(size: int, alignment: int, stream: int | None) -> Tensor:
    return torch.empty(size, dtype=torch.int8, device="cuda")
