"""Rounds keep to their limits; the event stopwatch queues a whole round before it waits."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from sparsediff.bench import stopwatch


class Scripted:
    """A stopwatch that says every run takes `seconds`, and counts rounds."""

    def __init__(self, seconds: float) -> None:
        self.of_a_run, self.rounds = seconds, 0

    def seconds(self, runs: list[stopwatch.Run]) -> list[float]:
        self.rounds += 1
        return [self.of_a_run * self.rounds for _ in runs]


@pytest.mark.parametrize(
    ("seconds", "n"),
    [(0.001, 9), (10.0, 3), (1.0, 4)],  # the limit; the least; 2 x (1 + 2 + 3 + 4 + 5) >= 25
)
def test_rounds(seconds: float, n: int) -> None:
    clock = Scripted(seconds)
    times = stopwatch.rounds(clock, [print, print], limit=9, least=3, seconds=25)
    assert [len(one) for one in times] == [n, n]
    assert clock.rounds == n + 1
    assert times[0][0] == 2 * seconds  # the first round is thrown away


def test_wall_stopwatch() -> None:
    found = stopwatch.stopwatch_for("cpu").seconds([lambda: None, lambda: sum(range(200_000))])
    assert 0 <= found[0] < found[1]


def test_event_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.at = 0

        def record(self) -> None:
            self.at = len(log)
            log.append("event")

        def elapsed_time(self, end: Event) -> float:
            assert log.count("wait") == 1
            return 1000.0 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait"))
    monkeypatch.setattr(stopwatch, "FLUSH_BYTES", 16)
    watch = stopwatch.EventStopwatch(torch.device("cpu"))
    watch._flush.fill_(1)
    runs = [lambda: log.append("a"), lambda: log.extend("bb")]
    assert watch.seconds(runs) == [2.0, 3.0]
    assert log == ["event", "a", "event", "event", "b", "b", "event", "wait"]
    assert not watch._flush.any()
