"""The measured order: it decides "auto", outlives the process, and only right results count."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsediff.kernels import (
    BlockMask,
    SparseError,
    measured_file,
    ranked_call,
    ranking,
    ranking_file,
    registry,
    trial,
)
from sparsediff.kernels import block_sparse_attention as attention
from sparsediff.kernels.inputs import AttentionInputs
from sparsediff.kernels.reference import ReferenceBackend
from sparsediff.kernels.registry import auto_order, choose, rank_backends

MASK = BlockMask.full(block_size=64, q_len=128, kv_len=128)
REFERENCE = ReferenceBackend()
PAUSE = 0.02  # seconds; far above what a busy machine adds to the best of some calls


class Contestant(ReferenceBackend):
    """The reference's results times a factor, at once but for a pause; counts its calls."""

    def __init__(self, name: str, pause: float, *, factor: float = 1.0) -> None:
        self.name, self.pause, self.factor = name, pause, factor
        self.calls = 0
        self.known: dict[int, tuple[Tensor, tuple[Tensor, Tensor | None]]] = {}

    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        self.calls += 1
        time.sleep(self.pause)
        if inputs.needs_grad:
            return self.computed(inputs)
        if id(inputs.q) not in self.known:  # with q itself, so that no other gets its id
            self.known[id(inputs.q)] = inputs.q, self.computed(inputs)
        return self.known[id(inputs.q)][1]

    def computed(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        out, lse = super().attention(inputs)
        return out * self.factor, lse


class Broken(Contestant):
    def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        self.calls += 1
        raise RuntimeError("no such instruction\nand a long dump")


Enter = Callable[..., None]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Ranking on, with nothing known and an empty cache of its own."""
    monkeypatch.setenv("SPARSEDIFF_RANKING", "on")
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ranking, "_ranks", {})
    monkeypatch.setattr(trial, "QUICK_SECONDS", 60.0)  # all rounds, however busy the machine
    measured_file.warn_once.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Enter:
    """Start with these backends, in this fixed order, and the reference."""

    def enter(*backends: Contestant) -> None:
        ranking.forget()
        names = tuple(backend.name for backend in backends)
        monkeypatch.setattr(registry, "ordered_backends", lambda: (*backends, REFERENCE))
        monkeypatch.setattr(registry, "FIXED_ORDER", {"cpu": names, "meta": names})

    return enter


def call(dtype: torch.dtype = torch.float32, **changes: object) -> AttentionInputs:
    q, k, v = (torch.ones(1, 128, 1, 32, dtype=dtype) for _ in range(3))
    return AttentionInputs(**{"q": q, "k": k, "v": v, "mask": MASK, "scale": 0.5, **changes})


def names(inputs: AttentionInputs) -> list[str]:
    return [backend.name for backend in auto_order(inputs)]


@pytest.mark.parametrize("fast", ["first", "second"])
def test_the_rank_decides(enter: Enter, fast: str) -> None:
    pauses = {"first": PAUSE, "second": PAUSE, fast: 0.0}
    first, second = (Contestant(name, pause) for name, pause in pauses.items())
    enter(first, second)
    assert choose("auto", call()).name == fast
    assert names(call()) == [fast, *({"first", "second"} - {fast}), "reference"]
    timed = first.calls, second.calls
    assert min(timed) >= 2  # once to check, at least once to time
    attention(*(torch.ones(1, 128, 1, 32) for _ in range(3)), MASK)
    assert first.calls + second.calls == sum(timed) + 1


def test_a_quick_trial_ends_early(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "QUICK_SECONDS", 0.0)
    contestants = Contestant("a", 0.0), Contestant("b", 0.0)
    enter(*contestants)
    choose("auto", call())
    assert [backend.calls for backend in contestants] == [2, 2]  # checked, then timed once


def test_near_equals_keep_the_fixed_order() -> None:
    rank = ranking_file.Rank(seconds={"b": 1.0, "a": 1.05, "c": 0.5}, failures={"d": "broke"})
    assert rank.order(["a", "b", "d", "e", "c"]) == ["c", "a", "b", "e"]


def test_a_wrong_kernel_never_wins(enter: Enter, caplog: pytest.LogCaptureFixture) -> None:
    enter(Contestant("wrong", 0.0, factor=1.001), Contestant("right", PAUSE))
    assert names(call()) == ["right", "reference"]
    assert "backend 'wrong' is left out" in caplog.text
    entry = next(iter(ranking_file.load().values()))
    assert list(entry.seconds) == ["right"]
    assert entry.failures["wrong"].startswith("wrong result: a row is off by 0.001")


def test_nan_is_wrong(enter: Enter) -> None:
    enter(Contestant("nan", 0.0, factor=float("nan")), Contestant("right", 0.0))
    assert names(call()) == ["right", "reference"]


class WrongGradient(Contestant):
    def computed(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        out, lse = super().computed(inputs)
        return out.detach() + 0.5 * (out - out.detach()), lse


def test_a_wrong_gradient_never_wins(enter: Enter) -> None:
    enter(WrongGradient("wrong", 0.0), Contestant("right", 0.0))
    assert names(call(q=torch.ones(1, 128, 1, 32, requires_grad=True))) == ["right", "reference"]
    with torch.no_grad():
        assert set(names(call())) == {"wrong", "right", "reference"}


def test_one_that_raises_is_left_out_with_its_reason(enter: Enter) -> None:
    enter(Broken("broken", 0.0), Contestant("slow", 0.001))
    assert choose("auto", call()).name == "slow"
    entry = next(iter(ranking_file.load().values()))
    assert entry.failures == {"broken": "RuntimeError: no such instruction"}


def test_too_little_memory_says_nothing(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Contestant, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Broken, "attention", full)
    enter(Broken("full", 0.0), Contestant("other", 0.0))
    assert names(call()) == ["full", "other", "reference"]
    assert not ranking_file.path().exists()


def test_the_file_is_read_and_nothing_measured_again(enter: Enter) -> None:
    enter(Contestant("a", PAUSE), Contestant("b", 0.0))
    assert choose("auto", call()).name == "b"
    swapped = Contestant("a", 0.0), Contestant("b", PAUSE)
    enter(*swapped)
    assert choose("auto", call()).name == "b"
    assert [backend.calls for backend in swapped] == [0, 0]


SECOND_PROCESS = """
import torch
from sparsediff.kernels import BlockMask, registry
from sparsediff.kernels.inputs import AttentionInputs
x = torch.ones(1, 128, 1, 32)
mask = BlockMask.full(block_size=64, q_len=128, kv_len=128)
inputs = AttentionInputs(q=x, k=x, v=x, mask=mask, scale=0.5)
def measured(*args, **kwargs):
    raise SystemExit("measured again")
registry.rank_of.__globals__["measure"] = measured
print(*[backend.name for backend in registry.auto_order(inputs)])
"""


def test_another_process_reads_the_file(enter: Enter) -> None:
    """The true backends, in an order that no measurement would give."""
    enter(Contestant("cpu", PAUSE), Contestant("gather", 0.0))
    assert choose("auto", call()).name == "gather"
    done = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert done.stdout.split() == ["gather", "cpu", "flex", "reference"], done.stderr


def test_another_version_measures_again(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(Contestant("a", PAUSE), Contestant("b", 0.0))
    assert choose("auto", call()).name == "b"
    enter(Contestant("a", 0.0), Contestant("b", PAUSE))
    monkeypatch.setattr(ranked_call, "versions", lambda: "torch 99")
    assert choose("auto", call()).name == "a"
    assert len(ranking_file.load()) == 2


def test_each_kind_of_call_has_its_own_rank(enter: Enter) -> None:
    enter(Contestant("a", 0.0), Contestant("b", 0.0))
    small = BlockMask.full(block_size=32, q_len=128, kv_len=128)
    for inputs in (
        call(),
        call(torch.bfloat16),
        call(mask=small),
        call(return_lse=True),
        call(q=torch.ones(1, 128, 1, 64)),
    ):
        choose("auto", inputs)
    assert len(ranking_file.load()) == 5
    choose("auto", call(q=torch.ones(1, 128, 1, 20)))  # padded to 32
    assert len(ranking_file.load()) == 5


def test_of_processes_that_start_together_the_first_is_kept(enter: Enter) -> None:
    other = ranking_file.Rank(seconds={"a": 9.0, "b": 1.0}, failures={})
    inputs = call()
    key = ranked_call.RankedCall.of(inputs).key

    class Racing(Contestant):
        def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
            ranking_file.save(key, other, replace=False)
            return super().attention(inputs)

    enter(Racing("a", 0.0), Contestant("b", PAUSE))
    assert choose("auto", inputs).name == "b"
    assert ranking_file.load()[key].seconds == other.seconds


def test_a_pin_holds_and_measures_nothing(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = Contestant("slow", PAUSE), Contestant("fast", 0.0)
    enter(slow, fast)
    assert choose("auto", call()).name == "fast"
    timed = slow.calls, fast.calls
    monkeypatch.setenv("SPARSEDIFF_BACKEND", "slow")
    assert choose("auto", call()).name == "slow"
    assert choose("auto", call(torch.bfloat16)).name == "slow"
    assert (slow.calls, fast.calls) == timed


def test_one_usable_backend_is_not_measured(enter: Enter) -> None:
    alone = Contestant("alone", 0.0)
    enter(alone)
    assert names(call()) == ["alone", "reference"]
    assert alone.calls == 0


def test_those_that_compile_take_part_once_asked_for(enter: Enter) -> None:
    flex, quick, other = Contestant("flex", 0.0), Contestant("a", PAUSE), Contestant("b", 2 * PAUSE)
    enter(quick, flex, other)
    assert names(call()) == ["a", "b", "flex", "reference"]
    assert flex.calls == 0
    rank = rank_backends(device="cpu", dtype=torch.float32, head_dim=32)
    assert set(rank.seconds) == {"a", "b", "flex"}
    assert names(call()) == ["flex", "a", "b", "reference"]
    ranking.forget()  # and from the file
    assert names(call()) == ["flex", "a", "b", "reference"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"dtype": torch.float64}, "torch.float64 on cpu"), ({"block_size": 512}, "blocks of .512")],
)
def test_kinds_that_are_not_ranked(enter: Enter, changes: dict[str, object], words: str) -> None:
    enter(Contestant("a", 0.0), Contestant("b", 0.0))
    kind = {"device": "cpu", "dtype": torch.float32, "head_dim": 32, **changes}
    with pytest.raises(SparseError, match=words):
        rank_backends(**kind)


def test_nothing_is_measured_where_nothing_may_be(enter: Enter, cache: Path) -> None:
    contestants = Contestant("a", 0.0), Contestant("b", 0.0)
    enter(*contestants)
    fixed = ["a", "b", "reference"]
    with FakeTensorMode():
        assert names(call()) == fixed
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(torch.ones(1, 128, 1, 32))
    assert names(call(q=fake)) == fixed
    assert names(call(q=torch.ones(1, 128, 1, 32, device="meta"))) == fixed

    @torch.compile(backend="eager", fullgraph=True)
    def compiled(x: Tensor) -> Tensor:
        return x * len(names(call()))

    assert compiled(torch.ones(1)).item() == len(fixed)
    assert [backend.calls for backend in contestants] == [0, 0]
    assert not cache.exists()
    names(call())
    assert contestants[0].calls > 0  # and here it may


@pytest.mark.parametrize("capturing", [False, True])
def test_not_while_a_cuda_graph_is_captured(
    monkeypatch: pytest.MonkeyPatch, capturing: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    q = SimpleNamespace(device=torch.device("cuda:0"), dtype=torch.bfloat16)
    assert ranking.measurable(call(q=q)) is not capturing


def test_switched_off(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Contestant("slow", PAUSE)
    enter(slow, Contestant("fast", 0.0))
    monkeypatch.setenv("SPARSEDIFF_RANKING", "off")
    assert choose("auto", call()).name == "slow"
    assert slow.calls == 0
    monkeypatch.setenv("SPARSEDIFF_RANKING", "maybe")
    with pytest.raises(SparseError, match="SPARSEDIFF_RANKING='maybe'; give"):
        choose("auto", call())


def test_the_callers_state_is_neither_seen_nor_changed(enter: Enter) -> None:
    class Watching(Contestant):
        def attention(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
            assert not torch.is_autocast_enabled("cpu")
            assert not torch.is_inference_mode_enabled()
            return super().attention(inputs)

    enter(Watching("a", 0.0), Contestant("b", 0.0))
    saved: list[Tensor] = []
    state = torch.get_rng_state()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        names(call(q=torch.ones(1, 128, 1, 32, requires_grad=True)))
    with torch.inference_mode():
        names(call())
    assert [rank.failures for rank in ranking_file.load().values()] == [{}, {}]
    assert saved == []
    assert torch.equal(torch.get_rng_state(), state)


GOOD = {"schema": "sparsediff.ranking/1", "entries": {"x": {"seconds": {"a": 1.0}, "failures": {}}}}


def changed(**entry: object) -> dict[str, object]:
    return {**GOOD, "entries": {"x": {**GOOD["entries"]["x"], **entry}}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\x00\xff",
        "[]",
        json.dumps({**GOOD, "schema": "sparsediff.ranking/2"}),
        json.dumps({**GOOD, "entries": []}),
        json.dumps({**GOOD, "entries": {"x": 1}}),
        json.dumps(changed(more=1)),
        json.dumps(changed(seconds=[1.0])),
        json.dumps(changed(seconds={"a": "fast"})),
        json.dumps(changed(seconds={"a": True})),
        json.dumps(changed(seconds={"a": -1.0})),
        json.dumps(changed(seconds={"a": float("nan")})),
        json.dumps(changed(failures={"a": 1})),
    ],
)
def test_a_broken_file_is_measured_anew(
    enter: Enter, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    ranking_file.path().parent.mkdir(parents=True)
    ranking_file.path().write_text(text)
    enter(Contestant("slow", PAUSE), Contestant("fast", 0.0))
    with caplog.at_level(logging.WARNING):
        assert choose("auto", call()).name == "fast"
    assert caplog.text.count("is not read") == 1
    assert len(ranking_file.load()) == 1  # whole again


def test_a_good_file_is_read(enter: Enter) -> None:
    ranking_file.path().parent.mkdir(parents=True)
    ranking_file.path().write_text(json.dumps(GOOD))
    assert ranking_file.load()["x"].seconds == {"a": 1.0}


def test_an_unwritable_folder_warns_once_and_fails_nothing(
    enter: Enter, caplog: pytest.LogCaptureFixture
) -> None:
    ranking_file.path().parent.write_text("a file where the folder should be")
    enter(Contestant("slow", PAUSE), Contestant("fast", 0.0))
    assert choose("auto", call()).name == "fast"
    assert choose("auto", call(torch.bfloat16)).name == "fast"
    assert caplog.text.count("is not written") == 1


def test_the_file_does_not_grow_without_end(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_file, "MAX_ENTRIES", 3)
    rank = ranking_file.Rank(seconds={"a": 1.0}, failures={})
    for key in "abcda":
        ranking_file.save(key, rank, replace=True)
    assert list(ranking_file.load()) == ["c", "d", "a"]
    assert [path.name for path in ranking_file.path().parent.iterdir()] == ["ranking.json"]


def test_readers_and_writers_at_once_see_whole_files(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rank = ranking_file.Rank(seconds={"a": 1.0}, failures={"b": "x" * 10_000})

    def work(writer: int) -> None:
        for turn in range(20):
            ranking_file.save(f"{writer} {turn}", rank, replace=True)
            assert ranking_file.load()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert caplog.text == ""


def test_the_versions_follow_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kernel.cpp").write_text("1")
    monkeypatch.setattr(ranked_call, "__file__", str(tmp_path / "ranked_call.py"))
    try:
        ranked_call.versions.cache_clear()
        before = ranked_call.versions()
        (tmp_path / "kernel.cpp").write_text("2")
        ranked_call.versions.cache_clear()
        assert ranked_call.versions() != before
        assert f"torch {torch.__version__}" in before
    finally:
        ranked_call.versions.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_true_backends_pass_their_trial(cache: Path, dtype: torch.dtype) -> None:
    registry.find_backend("cpu").reasons(call())  # compiles where it was not yet
    with torch.no_grad():
        assert choose("auto", call(dtype, return_lse=True)).name in {"cpu", "gather"}
    gradient = ranked_call.RankedCall.of(call(q=torch.ones(1, 1, 1, 64, requires_grad=True)))
    ranking.measure(gradient, [registry.find_backend("gather")], thorough=False)
    found = list(ranking_file.load().values())
    assert [rank.failures for rank in found] == [{}, {}]
    assert [list(rank.seconds) for rank in found] == [["cpu", "gather"], ["gather"]]
