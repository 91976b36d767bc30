"""Rows 4 to 6 of the fault catalogue: a plan.json that is wrong gives one sentence, and no more."""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plan_files import change
from untouched import states

from sparsediff.kernels.errors import PlanError
from sparsediff.plans import PatternPlan

Edit = Callable[[dict[str, Any]], object]


def refused(pipe: Any, folder: Path) -> str:
    """The message with which a plan is refused; nothing may be attached, nor internals shown."""
    before = states(pipe)
    with pytest.raises(PlanError) as found:
        pipe.enable_sparse_attention(folder)
    assert states(pipe) == before
    shown = "".join(traceback.format_exception(found.value))
    assert "JSONDecodeError" not in shown
    assert "RecursionError" not in shown
    assert "Misfit" not in shown
    assert "During handling" not in shown
    assert "direct cause" not in shown
    message = str(found.value)
    assert len(message) < 1500
    assert message.isprintable()
    return message


def first_head(values: dict[str, Any], mode: str) -> dict[str, Any]:
    heads = (h for bucket in values["buckets"] for layer in bucket for h in layer)
    found: dict[str, Any] = next(head for head in heads if head["mode"] == mode)
    return found


def test_row_4_cut_off(pipe: Any, folder: Path) -> None:
    path = folder / "plan.json"
    content = path.read_bytes()
    for size in (0, 1, 30, 200, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:size])
        message = refused(pipe, folder)
        lines = content[:size].decode().split("\n")
        assert "plan.json: line " in message
        assert f"line {len(lines)} column" in message or size == 30


def test_row_4_a_comma_too_many(pipe: Any, folder: Path) -> None:
    path = folder / "plan.json"
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith('"density"'))
    lines[number] = '"density":,'
    path.write_text("\n".join(lines))
    assert f"plan.json: line {number + 1} column 11: Expecting value" in refused(pipe, folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{", r"byte 0 is not UTF-8"),
        (b"\xef\xbb\xbf{}", r"line 1 column 1"),
        (b"[" * 2_000_000, "nested too deep"),
        (b'{"a":' * 1_000_000, "nested too deep"),
        (b'{"schema": NaN}', "NaN is not a number"),
        (b'{"schema": -Infinity}', "-Infinity is not a number"),
        (b'{"schema": 1e999}', "the number 1e999 is too large"),
        (b'{"schema": ' + b"9" * 100_000 + b"}", r"has more than 19 digits"),
        (b'{"schema": 1, "schema": 2}', "the key 'schema' comes twice"),
        (b"[]", "is not a plan: it needs the schema 'sparsediff.plan/1'"),
        (b"null", "is not a plan"),
        (b'{"schema": "sparsediff.generation/1"}', "is not a plan"),
        (b'{"schema": "sparsediff.plan/2"}', r"made by a newer sparsediff \(2\), this reads 1"),
        (b'{"schema": "sparsediff.plan/0"}', "format 0, which never was"),
        (b'{"schema": "sparsediff.plan/1"}', "the document has no key 'grid'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_plan(pipe: Any, folder: Path, content: bytes, message: str) -> None:
    (folder / "plan.json").write_bytes(content)
    found = refused(pipe, folder)
    assert re.search(message, found), found


def test_row_5_the_size_is_checked_before_reading(
    pipe: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "plan.json"
    with path.open("ab") as file:
        file.truncate(16 * 2**20 + 1)
    opened = []
    original = Path.open

    def noting(self: Path, *arguments: Any, **named: Any) -> Any:
        opened.append(self.name)
        return original(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", noting)
    assert "plan.json has 16777217 bytes; a plan's may have 16777216" in refused(pipe, folder)
    assert "plan.json" not in opened


EDITS: dict[str, tuple[Edit, str]] = {
    "half width below 0": (
        lambda v: v["buckets"][0][0][0].update(half_width=-1),
        "buckets[0][0][0].half_width = -1: needs a number >= 0 and <= 1024",
    ),
    "half width a text": (
        lambda v: v["buckets"][0][0][0].update(half_width="0.5"),
        "buckets[0][0][0].half_width = '0.5': needs a number",
    ),
    "true is no number": (
        lambda v: v["buckets"][0][0][0].update(half_width=True),
        "buckets[0][0][0].half_width = true: needs a number",
    ),
    "1 is not true": (
        lambda v: first_head(v, "multi-diagonal").update(everywhere=1),
        "everywhere = 1: needs true or false",
    ),
    "no widths": (
        lambda v: first_head(v, "multi-diagonal").update(half_widths=[]),
        "half_widths = a list of 0: needs a list of at least 1",
    ),
    "by place with two widths": (
        lambda v: first_head(v, "multi-diagonal").update(by_place=True),
        "buckets[0][0][1]: MultiDiagonal.by_place=True: needs one width",
    ),
    "unknown mode": (
        lambda v: v["buckets"][1][2][0].update(mode="diagnal"),
        "buckets[1][2][0].mode = 'diagnal': needs one of full, skip, diagonal",
    ),
    "no mode": (lambda v: v["buckets"][0][0][0].pop("mode"), "buckets[0][0][0] has no key 'mode'"),
    "a key of another mode": (
        lambda v: first_head(v, "full").update(half_width=1),
        "has an unknown key 'half_width'; it may hold mode, error",
    ),
    "negative error": (
        lambda v: v["buckets"][0][0][0].update(error=-0.1),
        "buckets[0][0][0].error = -0.1: needs a number >= 0",
    ),
    "head is a list": (
        lambda v: v["buckets"][0][0].__setitem__(1, [1]),
        "buckets[0][0][1] = a list of 1: needs an object",
    ),
    "no heads": (
        lambda v: v["buckets"][0].__setitem__(0, []),
        "buckets[0][0] = a list of 0: needs a list of at least 1",
    ),
    "a head less in one part": (
        lambda v: v["buckets"][1][0].pop(),
        "buckets[1] has other layers or heads than buckets[0]",
    ),
    "a part less": (lambda v: v["buckets"].pop(), "2 starts need as many buckets; found 1"),
    "buckets is an object": (lambda v: v.update(buckets={}), "buckets = an object: needs a list"),
    "density above 1": (
        lambda v: v.update(density=1.7),
        "density = 1.7: needs a number >= 0 and <= 1",
    ),
    "density below 0": (lambda v: v.update(density=-0.2), "density = -0.2"),
    "density null": (lambda v: v.update(density=None), "density = null"),
    "starts descend": (lambda v: v.update(starts=[0.6, 0.25]), "needs ascending shares"),
    "start at 1": (
        lambda v: v.update(starts=[0.2, 1]),
        "starts[1] = 1: needs a number >= 0 and < 1",
    ),
    "no frames": (lambda v: v["grid"].update(frames=0), "grid.frames = 0: needs a whole number"),
    "half a frame": (lambda v: v["grid"].update(frames=2.5), "grid.frames = 2.5"),
    "endless grid": (lambda v: v["grid"].update(width=10**15), "grid.width = 1000000000000000"),
    "grid key": (
        lambda v: v["grid"].update(frmes=v["grid"].pop("frames")),
        "grid has an unknown key 'frmes'; it may hold frames, height, width, text_before, text_after. "
        "Did you mean 'frames'? grid has no key 'frames'.",
    ),
    "blocks of 0": (lambda v: v.update(block_size=0), "block_size = 0: needs a whole number"),
    "layers below 0": (lambda v: v.update(dense_layers=-1), "dense_layers = -1"),
    "unknown key": (
        lambda v: v.update(evidance={}),
        "the document has an unknown key 'evidance'; it may hold",
    ),
    "its nearest": (lambda v: v.update(evidance={}), "Did you mean 'evidence'?"),
    "prompts a text": (
        lambda v: v["evidence"].update(prompts="a cat"),
        "evidence.prompts = 'a cat': needs a list",
    ),
    "a number among prompts": (
        lambda v: v["evidence"]["prompts"].append(3),
        "evidence.prompts[2] = 3: needs a text",
    ),
    "escape sequences": (
        lambda v: v["evidence"].update(device="\x1b[2J"),
        "evidence.device = '\\x1b[2J': needs a text without control characters",
    ),
    "half a character": (
        lambda v: v["evidence"].update(command="\ud800"),
        "evidence.command = '\\ud800': needs a text",
    ),
    "expected density": (
        lambda v: v["evidence"].update(density=1.5),
        "evidence.density = 1.5: needs a number >= 0 and <= 1",
    ),
    "seed below 0": (lambda v: v["evidence"]["seeds"].append(-1), "evidence.seeds[2] = -1"),
    "budget": (
        lambda v: v["evidence"].update(budget="speed"),
        "evidence.budget = 'speed': needs one of density, psnr, speedup. Did you mean 'speedup'?",
    ),
    "no components": (
        lambda v: v["fingerprint"].update(components=[]),
        "fingerprint.components = a list of 0",
    ),
    "head counts that disagree": (
        lambda v: v["fingerprint"]["components"][0].update(heads=[2, 2]),
        "fingerprint.components[0]: 3 layers, 2 heads and 3 head_dims",
    ),
    "other head counts than the table": (
        lambda v: v["fingerprint"]["components"][0].update(heads=[2, 2, 9]),
        "The patterns are for 3 layers with 6 heads, the fingerprint's model has 3 layers with 13",
    ),
    "column count": (
        lambda v: first_head(v, "stripe").update(row=2),
        ".row = 2: needs a whole number from 0 to 1",
    ),
    "a row of no table": (
        lambda v: v.update(tables=None),
        ".row = 0: needs a plan with tables, and this one has none",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_row_5_and_6(what: str, pipe: Any, folder: Path) -> None:
    edit, message = EDITS[what]
    change(folder, edit)
    assert message in refused(pipe, folder)


def test_every_wrong_value_is_named(pipe: Any, folder: Path) -> None:
    def spoil(values: dict[str, Any]) -> None:
        values["density"] = 2
        values["grid"]["height"] = -4
        values["evidence"]["psnr"] = "good"

    change(folder, spoil)
    message = refused(pipe, folder)
    for path in ("density = 2:", "grid.height = -4:", "evidence.psnr = 'good':"):
        assert path in message


@pytest.mark.parametrize("where", ["buckets", "fingerprint"])
def test_a_flood_of_errors_stays_short(where: str, pipe: Any, folder: Path) -> None:
    floods: dict[str, object] = {
        "buckets": [[[{"mode": "x" * 200}] * 2000] * 20],
        "fingerprint": {f"key {i}": i for i in range(20_000)},
    }
    change(folder, lambda v: v.update({where: floods[where]}))
    started = time.process_time()
    assert "And more." in refused(pipe, folder)
    assert time.process_time() - started < 5


def test_a_plan_full_of_heads_is_read_in_time(folder: Path) -> None:
    """Far more heads than any model has, all of them right as far as one can see."""
    change(folder, lambda v: v.update(buckets=[[[{"mode": "full"}] * 50_000] * 2], starts=[0.2]))
    started = time.process_time()
    with pytest.raises(PlanError, match="2 layers with 100000 heads"):
        PatternPlan.from_pretrained(folder)
    assert time.process_time() - started < 20


def test_what_is_written_is_plain_json(folder: Path) -> None:
    values = json.loads((folder / "plan.json").read_text())
    assert values["schema"] == "sparsediff.plan/1"
    assert values["buckets"][0][0][0] == {"mode": "diagonal", "half_width": 0.25, "error": 0.1}
    assert values["buckets"][0][1][0] == {"mode": "stripe", "row": 0, "error": 0.1}
