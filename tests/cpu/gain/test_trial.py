"""The trial itself: what is timed, in whose place, and that it leaves no trace in the caller."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from attention_calls import Recorder, call, tensors
from fake_machine import Machine

from sparsediff.gain import trial
from sparsediff.gain.case import GainCase
from sparsediff.gain.gate import Gate, case_of
from sparsediff.gain.outlook import torch_attention
from sparsediff.gain.times import FILE, AttentionTimes
from sparsediff.gain.trial import MOST_ROUNDS, GainTrial, times_of
from sparsediff.kernels import BlockMask, turns
from sparsediff.search import AdaSpa, AttentionCall, Step, TokenGrid, Window
from sparsediff.search.head_share import HeadShare
from sparsediff.user_attention import UserAttention

CASE = GainCase(
    tokens=128,
    streams=3,
    head_dim=16,
    dtype=torch.float32,
    device=torch.device("cpu"),
    block_size=16,
)
GRID = TokenGrid(frames=2, height=8, width=8)


class Clock:
    """Moves only when a kernel says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.drift = 1.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds * self.drift


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sparse calls take 0.05 s and their density, dense 1 s, with LSE 1.2, mass 0.4, choice 0.1."""
    found = Clock()

    def slow(name: str, seconds: Any, of: Any) -> None:
        true = getattr(of, name)

        def run(self: Any, *args: Any, **options: Any) -> Any:
            out = true(self, *args, **options)
            found.spend(seconds(*args))
            return out

        monkeypatch.setattr(of, name, run)

    slow("dense", lambda: 1.0, AttentionCall)
    slow("dense_with_lse", lambda: 1.2, AttentionCall)
    slow("mass", lambda *_: 0.4, AttentionCall)
    slow("probe", lambda *_: 0.2, AttentionCall)
    slow("with_global_tokens", lambda *_: 0.03, trial)
    slow("mask", lambda *_: 0.1, AdaSpa)
    slow("sparse", lambda mask: 0.05 + mask.density, AttentionCall)
    monkeypatch.setattr(turns, "perf_counter", found)
    monkeypatch.setattr("sparsediff.gain.trial.SECONDS", 1e9)
    return found


def test_the_times_are_those_of_the_kernels(clock: Clock) -> None:
    times = GainTrial.of(CASE, torch_attention).times()
    assert times.dense_seconds == pytest.approx(1.0)
    assert times.dense_with_lse == pytest.approx(1.2)
    assert times.mass == pytest.approx(0.4)
    assert times.choice == pytest.approx(0.1)
    assert times.probe == pytest.approx(0.2)
    assert times.joined == pytest.approx(0.03)
    for density in (0.1, 0.3, 0.7):
        assert times.sparse.at(density) == pytest.approx(density + 0.05)


def test_what_interrupts_a_call_is_no_part_of_its_time(clock: Clock) -> None:
    pauses = iter([0.0] * 7 + [30.0, 0.0, 5.0] * MOST_ROUNDS * 20)
    true = clock.spend
    clock.spend = lambda seconds: true(seconds + next(pauses))  # type: ignore[method-assign]
    times = GainTrial.of(CASE, torch_attention).times()
    assert times.dense_seconds == pytest.approx(1.0)
    assert times.sparse.at(0.5) == pytest.approx(0.55)


@pytest.mark.parametrize("change", [{}, {"compensate": True}, {"moved": True}, {"block_size": 64}])
def test_real_kernels_give_times(
    change: dict[str, Any], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the true trial, and a file of no consequence
    monkeypatch.setattr("sparsediff.gain.trial.SECONDS", 0.0)
    case = replace(CASE, **change)
    seen: list[tuple[int, bool]] = []

    def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        seen.append((q.shape[1], torch.is_grad_enabled()))
        return torch_attention(q, k, v)

    times = GainTrial.of(case, dense).times()
    assert 0 < times.dense_seconds < 60
    assert len(times.sparse.points) == (2 if case.block_size == 64 else 4)  # that differ
    assert set(seen) == {(128, False)}
    assert AttentionTimes.from_dict(times.to_dict()) == times


def test_the_caller_notices_nothing(machine: Machine) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        times_of(CASE, torch_attention)
        assert torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_kept_until_measured_anew(machine: Machine) -> None:
    first = times_of(CASE, torch_attention)
    machine.setup = 0.5
    assert times_of(CASE, torch_attention) == first
    anew = times_of(CASE, torch_attention, anew=True)
    assert anew.sparse.at(0.1) == pytest.approx(0.6)
    assert times_of(CASE, torch_attention) == anew
    assert len(machine.trials) == 2
    assert len(FILE.load()) == 1


def attention(q: torch.Tensor, mask: torch.Tensor | None = None) -> UserAttention:
    return UserAttention(name="native", function=masked, q=q, k=q, v=q, mask=mask, scale=None)


def masked(**arguments: Any) -> torch.Tensor:
    arguments = {"attn_mask": None} | arguments
    q, k, v = (arguments[name].transpose(1, 2) for name in ("query", "key", "value"))
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=arguments["attn_mask"], scale=arguments["scale"]
    )
    return out.transpose(1, 2)


@pytest.mark.parametrize("shape", [(2, 1, 1, 40), (2, 4, 40, 40), (1, 1, 40, 40), (40, 40)])
def test_the_users_attention_on_a_shorter_problem(shape: tuple[int, ...]) -> None:
    """As much of the mask as the problem has tokens, of the first item and head."""
    noise = torch.Generator().manual_seed(0)
    q = torch.randn(2, 40, 4, 8, generator=noise)
    mask = torch.rand(shape, generator=noise) < 0.7
    mask[..., 0] = True
    call = attention(q, mask)
    assert call().shape == q.shape
    short = q[:1, :24, :3].contiguous()
    part = torch.broadcast_to(mask, (2, 4, 40, 40))[:1, :1, :24, :24]
    expected = masked(query=short, key=short, value=short, attn_mask=part, scale=None)
    torch.testing.assert_close(call.on(short, short, short), expected, atol=0, rtol=0)
    assert torch.equal(attention(q).on(short, short, short), attention(short)())


def test_each_length_is_decided_by_itself(machine: Machine) -> None:
    """As in a UNet, whose levels have different lengths."""
    machine.setups = {GRID.tokens: 2.0}
    gate = Gate(Window(block_size=8, density=0.4), on=True)
    step, recorder = Step(index=0, total=10), Recorder()
    long = TokenGrid(frames=4, height=8, width=8)
    reasons = []
    for grid in (long, GRID, long, GRID):
        here = call(grid, step, recorder, tensors(grid))
        reasons.append(gate.reason(here, attention(here.q)))
    assert [bool(reason) for reason in reasons] == [False, True, False, True]
    assert reasons[1] == reasons[3]
    assert [found.pays for found in gate.predictions] == [True, False]
    assert len(machine.trials) == 2
    gate.new_run()
    assert gate.predictions == []


def test_processes_that_divide_the_heads_take_the_figure_of_the_first(machine: Machine) -> None:
    """One whose kernels seem faster must not run sparse where the first one runs dense."""
    step, recorder = Step(index=0, total=10), Recorder()
    here = call(GRID, step, recorder, tensors(GRID))

    def decided(others: float) -> tuple[str, list[float]]:
        share = HeadShare.of(
            [[4, 5, 6, 7], [0, 1, 2, 3]],
            1,
            "cpu",
            lambda own: torch.stack([torch.full_like(own, others), own]),
        )
        gate = Gate(Window(block_size=8, density=0.4), on=True)
        reason = gate.reason(replace(here, share=share), attention(here.q))
        return reason, [found.ratio for found in gate.predictions]

    reason, ratios = decided(1.5)
    assert "1.50 of dense" in reason
    assert ratios == [1.5]
    assert decided(0.25) == ("", [0.25])
    assert decided(math.nan) == ("", [])  # the first could not know, so nobody decides


def test_the_case_of_a_call() -> None:
    here = call(GRID, Step(index=0), Recorder(), tensors(GRID))
    method = AdaSpa(block_size=8, compensate=True)
    mask = torch.ones(2, 1, 1, GRID.tokens, dtype=torch.bool)
    assert case_of(here, attention(here.q, mask), method) == GainCase(
        tokens=GRID.tokens,
        streams=8,
        head_dim=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
        block_size=8,
        dense="native",
        masked=True,
        compensate=True,
    )


def test_masks_of_a_trial_have_the_shape_of_a_run() -> None:
    trial = GainTrial.of(CASE, torch_attention)
    full = BlockMask.full(block_size=16, q_len=128, kv_len=128)
    expected = torch_attention(trial.call.q, trial.call.k, trial.call.v)
    out = partial(trial.call.sparse, full)()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
