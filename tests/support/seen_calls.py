"""What the calls of a session saw: step, branch, batch rows, and whether they ran sparse."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SeenCall:
    """One self-attention call; `ran` is "sparse" or "dense"."""

    run: int
    step: int
    total: int | None
    branch: str
    layer: int
    rows: int
    ran: str


class SeenCalls:
    """Every call that comes to a session, from its creation on."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.calls: list[SeenCall] = []
        self._attend = session.attend
        session.attend = self._watched

    def _watched(self, layer: int, q: Any, *args: Any, **kwargs: Any) -> Any:
        out = self._attend(layer, q, *args, **kwargs)
        progress = self.session.progress
        self.calls.append(
            SeenCall(
                run=progress.run,
                step=progress.step.index,
                total=progress.step.total,
                branch=progress.branch,
                layer=layer,
                rows=q.shape[0],
                ran="dense" if self.session.log.calls[-1][2] is None else "sparse",
            )
        )
        return out

    @property
    def forwards(self) -> list[tuple[int, str]]:
        """(step, branch) of every forward, as its layers agree on it, in order."""
        return [key for key, _ in groupby((call.step, call.branch) for call in self.calls)]

    @property
    def totals(self) -> set[int | None]:
        """The numbers of steps that calls were told."""
        return {call.total for call in self.calls}

    @property
    def dense_steps(self) -> list[int]:
        """Steps with a dense call; a step that has sparse ones too is listed all the same."""
        return sorted({call.step for call in self.calls if call.ran == "dense"})

    @property
    def sparse_steps(self) -> list[int]:
        """Steps with a sparse call."""
        return sorted({call.step for call in self.calls if call.ran == "sparse"})

    def clear(self) -> None:
        """Forget the calls so far."""
        self.calls.clear()
