"""Gate: decides once per run and shape whether sparse attention pays, before its first call."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import nan

import torch

from sparsediff.gain.case import GainCase
from sparsediff.gain.prediction import Prediction, predict
from sparsediff.gain.times import AttentionTimes
from sparsediff.gain.trial import times_of
from sparsediff.kernels.turns import timeable
from sparsediff.search import AttentionCall, Method
from sparsediff.user_attention import UserAttention

logger = logging.getLogger("sparsediff")


class Gate:
    """The decisions of one session's run.

    An open gate (`on` False) lets every call through. So does one that cannot know: nothing can be
    timed on the device, while a CUDA graph is captured, with $SPARSEDIFF_RANKING=off, or the trial
    failed. Where several processes divide the heads, all take the figure of the first.
    """

    def __init__(self, method: Method, *, on: bool) -> None:
        self.method = method
        self.on = on
        self._decided: dict[GainCase, Prediction | None] = {}
        self._times: dict[GainCase, AttentionTimes | None] = {}

    def new_run(self) -> None:
        """Decide again: the number of steps may be another."""
        self._decided.clear()

    @property
    def predictions(self) -> list[Prediction]:
        """Those of the run, one for each shape, in the order of their calls."""
        return [found for found in self._decided.values() if found is not None]

    def reason(self, call: AttentionCall, dense: UserAttention) -> str:
        """Why a call is to run dense; empty where sparse attention pays or nobody can say."""
        if not self.on:
            return ""
        case = case_of(call, dense, self.method)
        if case not in self._decided:
            self._decided[case] = self._predicted(case, call, dense)
        found = self._decided[case]
        return "" if found is None else found.reason()

    def _predicted(
        self, case: GainCase, call: AttentionCall, dense: UserAttention
    ) -> Prediction | None:
        total = call.step.total
        if total is not None and not self.method.work(total).sparse:
            return None  # dense by schedule, which the session says
        times = self._measured(case, call, dense)
        density = self.method.computed_density(call.grid)
        found = None
        if times is not None:
            found = predict(case, times, self.method, density=density, steps=total)
        if call.share is None:
            return found
        ratio = torch.tensor([nan if found is None else found.ratio], device=call.q.device)
        ratios = call.share.collect(ratio)  # every process has to ask, whatever it knows
        if found is None or bool(ratios.isnan().any()):
            return None
        return replace(found, ratio=float(ratios[0]))

    def _measured(
        self, case: GainCase, call: AttentionCall, dense: UserAttention
    ) -> AttentionTimes | None:
        if case.untimed() or not timeable(call.q):
            return None
        if case not in self._times:
            try:
                self._times[case] = times_of(case, dense.on)
            except Exception as error:  # whatever a kernel, a driver or the user's attention raises
                first_line = (str(error).splitlines() or [""])[0][:200]
                logger.warning(
                    "whether sparse attention pays is not known, so it runs: %s (%s)",
                    first_line,
                    type(error).__name__,
                )
                self._times[case] = None
        return self._times[case]


def case_of(call: AttentionCall, dense: UserAttention, method: Method) -> GainCase:
    """What the times of a call depend on."""
    batch, tokens, heads, head_dim = call.q.shape
    return GainCase(
        tokens=tokens,
        streams=batch * heads,
        head_dim=head_dim,
        dtype=call.q.dtype,
        device=call.q.device,
        block_size=method.block_size,
        backend=call.backend,
        dense=dense.name,
        masked=dense.mask is not None,
        compensate=method.compensate,
        moved=call.arrangement is not None,
    )
