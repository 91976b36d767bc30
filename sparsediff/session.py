"""Session: everything that changes while one target runs with sparse attention."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from sparsediff.admission import Admission
from sparsediff.gain.gate import Gate
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import PlanMismatchError, SparseError
from sparsediff.layout import Positions, grid_of, has_larger_grid
from sparsediff.progress import Progress
from sparsediff.report import RunReport
from sparsediff.run_log import RunLog
from sparsediff.search import AttentionCall, Memory, Method
from sparsediff.search.call import under_autocast
from sparsediff.search.head_share import HeadShare
from sparsediff.user_attention import UserAttention

logger = logging.getLogger("sparsediff")

Observer = Callable[[AttentionCall, BlockMask | None], None]


class Session:
    """One enabled pipeline or model: its method, its place in the run, its masks and its counts.

    The only mutable thing of sparsediff. Returned by `enable_sparse_attention`; `report` says what the
    last run did, `masks` shows the blocks it kept, `disable` undoes everything.
    """

    def __init__(
        self,
        *,
        method: Method,
        backend: str,
        layers: list[str],
        depths: list[int],
        scheduler: Callable[[], Any] = lambda: None,
        gate: bool = True,
    ) -> None:
        self.method = method
        self.backend = backend
        self.layers = layers
        self.depths = depths  # the place of each layer inside its own model
        self.progress = Progress(scheduler)
        self.log = RunLog()
        self.admission = Admission(method, backend, layers)
        self.positions = Positions()
        self.gate = Gate(method, on=gate)
        self.undo: list[Callable[[], None]] = []
        self.observer: Observer | None = None  # sees every call a method computes; None is dense
        self.enabled = False  # whether the target runs with this session
        self.paused = False  # whether calls pass by it
        self._memories: dict[tuple[int, str], tuple[object, Memory]] = {}
        self._by_layer: dict[int, dict[str, Any]] = {}  # what the branches of a layer share
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        state = "enabled" if self.enabled else "disabled"
        return (
            f"Session({self.method.name}, density={self.method.density}, "
            f"{len(self.layers)} layers, {state})"
        )

    def disable(self) -> None:
        """Undo everything that enabling changed, in reverse order; the last report stays readable."""
        self.enabled = False
        while self.undo:
            self.undo.pop()()
        self.end_run()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Inside the with-block every call runs the user's dense attention, and none is counted.

        Quicker than disabling: nothing is taken off the model. Distillation asks its dense teacher so.
        """
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def report(self) -> RunReport:
        """What the last run did."""
        return self.log.report(
            method=self.method.to_dict(),
            names=self.layers,
            predictions=[found.to_dict() for found in self.gate.predictions],
        )

    def masks(self) -> dict[str, BlockMask]:
        """The last mask of every layer that ran sparse in the last run, by module name."""
        return {self.layers[layer]: mask for layer, mask in sorted(self.log.masks.items())}

    def end_run(self) -> None:
        """Free the patterns and caches of the run; the log stays."""
        self.progress.run_ends()
        self.log.settle()
        self._forget()

    def _forget(self) -> None:
        self._memories.clear()
        self._by_layer.clear()

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        attention_mask: Tensor | None,
        timestep: Tensor | None,
        layout: tuple[int, ...],
        positions: Tensor | None = None,
        part: int = 0,
        share: HeadShare | None = None,
        scale: float,
        dense: UserAttention,
        compiled: bool = False,
    ) -> Tensor:
        """Compute one self-attention call, ``[b, s, h, d]``, sparse where the method says so.

        `layout` and `positions` as the root hook found them; `part` numbers the calls of a processor
        that makes several, such as one for each row of the batch; `share` which heads of the layer
        these are, where several processes divide them.

        Raises SparseError, and disables the session first, when the inputs are broken or a backend
        asked for by name cannot compute them.
        """
        self._enter(layer, timestep, compiled=compiled, part=part)
        q, k, v = under_autocast(q, k, v)
        if positions is not None:
            layout = self.positions.layout(layout, positions)
        grid = grid_of(layout, q.shape[1])
        try:
            padding, arrangement, reason = self.admission.admit(
                layer, q, k, v, mask=attention_mask, grid=grid
            )
        except SparseError as error:
            self.disable()
            raise type(error)(f"{error} Sparse attention is disabled again.") from error
        if reason or grid is None:
            tokens = q.shape[1]
            if grid and self.admission.fits_one_block(tokens) and has_larger_grid(layout, tokens):
                self.noted(f"levels of {tokens} tokens run dense: {reason}")
                self.log.dense(self.progress.step.index, layer)
            else:
                self._ran_dense_because(layer, reason)
            return dense()
        call = AttentionCall(
            q=q,
            k=k,
            v=v,
            grid=grid if arrangement is None else arrangement.grid,
            step=self.progress.step,
            layer=layer,
            depth=self.depths[layer],
            scale=scale,
            kv_lens=padding.lengths,
            faint=padding.faint,
            backend=self.backend,
            user_dense=dense,
            recorder=self,
            share=share,
            arrangement=arrangement,
        )
        if reason := self.gate.reason(call, dense):
            self._ran_dense_because(layer, reason)
            return dense()
        try:
            return self.method.attend(call, self._memory(call, part))
        except PlanMismatchError as error:
            self.disable()
            raise PlanMismatchError(f"{error} Sparse attention is disabled again.") from None

    def passed_over(
        self, layer: int, timestep: Tensor | None, reason: str, *, compiled: bool = False
    ) -> None:
        """Count a call of a marked layer that runs dense without coming to `attend`."""
        if self.paused:
            return
        self._enter(layer, timestep, compiled=compiled)
        self._ran_dense_because(layer, reason)

    def _enter(self, layer: int, timestep: Tensor | None, *, compiled: bool, part: int = 0) -> None:
        """Find the step and branch of a call; a new run starts with nothing remembered."""
        if self.progress.at_layer(layer, timestep, compiled=compiled and part == 0):
            self._forget()
            self.admission.new_run()
            self.positions.new_run()
            self.gate.new_run()
            self.log = RunLog()
            total = self.progress.step.total
            if total is not None and self.method.schedule.dense_steps(total) >= total:
                self.fell_back(
                    f"warmup keeps all steps dense ({total}); take more steps or lower warmup"
                )
        if self.progress.seen == {layer}:  # first layer of a forward
            self.admission.new_forward()

    def _ran_dense_because(self, layer: int, reason: str) -> None:
        self.fell_back(reason)
        self.log.dense(self.progress.step.index, layer)

    def ran_dense(self, call: AttentionCall) -> None:
        """Count a call that ran dense as planned."""
        self.log.dense(call.step.index, call.layer)
        if self.observer is not None:
            self.observer(call, None)

    def ran_sparse(self, call: AttentionCall, mask: BlockMask, backend: str) -> None:
        """Count a call that ran sparse."""
        branch = self.progress.branch
        self.log.sparse(call.step.index, call.layer, branch, mask, backend, share=call.share)
        if self.observer is not None:
            self.observer(call, mask)

    def fell_back(self, reason: str) -> None:
        """Count a call that could not run sparse, and say why, once per reason."""
        self.log.fallbacks[reason] += 1
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning("attention runs dense here: %s", reason)

    def noted(self, text: str) -> None:
        """Put a sentence into the report of the run; the log gets it once."""
        if text not in self.log.notes:
            self.log.notes.append(text)
        if text not in self._warned:
            self._warned.add(text)
            logger.info("sparse attention: %s", text)

    def _memory(self, call: AttentionCall, part: int) -> Memory:
        """What is remembered of earlier calls; nothing when those had other shapes or token orders."""
        key = (call.layer, f"{self.progress.branch}.{part}")
        made_for = (tuple(call.q.shape), call.arrangement)
        known = self._memories.get(key)
        if known is None or known[0] != made_for:
            shared = self._by_layer.setdefault(call.layer, {})
            known = self._memories[key] = (made_for, Memory(layer=shared))
        return known[1]
