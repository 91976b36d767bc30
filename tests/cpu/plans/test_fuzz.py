"""Whatever the files hold: a PlanError, or a plan whose numbers are in range. Never anything else.

What is read as a plan is also enabled, with every way to run attention replaced by an error: no kernel
may be called before the model runs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from untouched import states

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import PlanError, SparseError
from sparsediff.plans import PatternPlan
from sparsediff.search.patterns.pattern import Stripe
from sparsediff.search.patterns.pattern_mask import pattern_mask

OUTCOMES = ("refused", "misfit", "plan")
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=QUIET)

_NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([-1, 0, 1, 2, 0.5, 1e308, 2**31, 2**63, 10**18])
)
_WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["full", "stripe", "online", "tables.safetensors", "sparsediff.plan/1", "\x00"]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def no_attention(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every way into a kernel says that it was taken."""
    taken: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        taken.append("attention")

    monkeypatch.setattr("sparsediff.search.call.attention", refuse)
    monkeypatch.setattr("sparsediff.search.call.measure", refuse)
    monkeypatch.setattr("sparsediff.search.call.dense_attention_lse", refuse)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", refuse)
    yield taken
    assert taken == []


def outcome(pipe: Any, folder: Path) -> str:
    """What became of the files: "refused", "misfit" or "plan"."""
    before = states(pipe)
    try:
        plan = PatternPlan.from_pretrained(folder)
    except PlanError as error:
        return "refused" if len(str(error)) < 2000 else "refused at length"
    in_range(plan)
    assert len(str(plan)) < 5000
    json.dumps(plan.to_dict(), allow_nan=False).encode()
    try:
        session = pipe.enable_sparse_attention(plan)
    except SparseError:
        assert states(pipe) == before
        return "misfit"
    session.disable()
    assert states(pipe) == before
    return "plan"


def in_range(plan: PatternPlan) -> None:
    table = plan.table
    blocks = block_count(table.grid.tokens, table.block_size)
    assert len(table.buckets) == len(table.starts)
    for heads in (heads for bucket in table.buckets for heads in bucket):
        for head in heads:
            if isinstance(head.pattern, Stripe):
                assert 0 <= head.pattern.columns[0] <= head.pattern.columns[-1] < blocks
        if blocks <= 64:
            mask = pattern_mask([head.pattern for head in heads], table.grid, table.block_size)
            used = mask.indices[..., 0][mask.counts > 0]
            assert ((used >= 0) & (used < blocks)).all()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    found = [path]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*path, key))
    return found


def put(values: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    home = values
    for key in path[:-1]:
        home = home[key]
    home[path[-1]] = new
    return values


@FUZZ
@given(data=st.data())
def test_any_value_at_any_place(data: st.DataObject, pipe: Any, folder: Path) -> None:
    path = folder / "plan.json"
    content = path.read_text()
    try:
        values = json.loads(content)
        for _ in range(data.draw(st.integers(1, 3), label="edits")):
            place = data.draw(st.sampled_from(places(values)), label="place")
            values = put(values, place, data.draw(VALUES, label="value"))
        path.write_text(json.dumps(values))
        assert outcome(pipe, folder) in OUTCOMES
    finally:
        path.write_text(content)


@FUZZ
@given(data=st.data())
def test_a_number_for_a_number(data: st.DataObject, pipe: Any, folder: Path) -> None:
    """Edits that often give a plan, so that what is read is checked and not only what is refused."""
    path = folder / "plan.json"
    content = path.read_text()
    try:
        values = json.loads(content)
        numbers = [
            place for place in places(values) if type(put_out(values, place)) in (int, float)
        ]
        place = data.draw(st.sampled_from(numbers), label="place")
        old = put_out(values, place)
        new = data.draw(
            st.integers(0, 9) if isinstance(old, int) else st.floats(0, 1), label="value"
        )
        path.write_text(json.dumps(put(values, place, new)))
        assert outcome(pipe, folder) in OUTCOMES
    finally:
        path.write_text(content)


def put_out(values: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize(
    ("place", "new", "expected"),
    [
        (("buckets", 0, 0, 0, "half_width"), 3, "plan"),
        (("buckets", 0, 0, 0, "half_width"), 1e308, "refused"),
        (("fingerprint", "components", 0, "head_dims", 0), 8, "misfit"),
        (("evidence", "psnr"), 12, "plan"),
    ],
)
def test_each_outcome_is_possible(
    place: Any, new: Any, expected: str, pipe: Any, folder: Path
) -> None:
    path = folder / "plan.json"
    path.write_text(json.dumps(put(json.loads(path.read_text()), place, new)))
    assert outcome(pipe, folder) == expected


@FUZZ
@given(data=st.data())
def test_broken_bytes_of_the_document(data: st.DataObject, pipe: Any, folder: Path) -> None:
    path = folder / "plan.json"
    content = path.read_bytes()
    try:
        path.write_bytes(broken(data, content))
        assert outcome(pipe, folder) in OUTCOMES
    finally:
        path.write_bytes(content)


@settings(FUZZ, max_examples=200)
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(content=b"")
@example(content=b"{")
@example(content=b'"\\ud800"')
@example(content=b"1" * 5000)
@example(content=b"-")
@example(content=b'{"schema": "sparsediff.plan/' + "\u0661".encode() + b'"}')
@example(content=b'{"schema": "sparsediff.plan/999999999999999999999"}')
def test_any_document(content: bytes, pipe: Any, folder: Path) -> None:
    (folder / "plan.json").write_bytes(content)
    assert outcome(pipe, folder) == "refused"


@FUZZ
@given(data=st.data(), signed=st.booleans())
def test_broken_bytes_of_the_tables(
    data: st.DataObject, signed: bool, pipe: Any, folder: Path
) -> None:
    """With the digest of the broken bytes, so that nothing but the checks of the arrays is left."""
    tables, path = folder / "tables.safetensors", folder / "plan.json"
    content, text = tables.read_bytes(), path.read_text()
    try:
        spoiled = broken(data, content)
        tables.write_bytes(spoiled)
        if signed:
            values = json.loads(text) | {"tables_sha256": sha256(spoiled).hexdigest()}
            path.write_text(json.dumps(values))
        elif spoiled != content:
            assert outcome(pipe, folder) == "refused"
        assert outcome(pipe, folder) in OUTCOMES
    finally:
        tables.write_bytes(content)
        path.write_text(text)


@FUZZ
@given(
    columns=st.lists(st.integers(-2, 8), max_size=8),
    starts=st.lists(st.integers(-2, 9), max_size=4),
    dtypes=st.tuples(*[st.sampled_from(["I32", "I64", "F32", "U8", "BOOL", "F8_E4M3", "X"])] * 2),
)
@example(columns=[0, 2, 5, 1], starts=[0, 3, 4], dtypes=("I32", "I64"))
def test_any_table(
    columns: list[int], starts: list[int], dtypes: tuple[str, str], pipe: Any, folder: Path
) -> None:
    parts = [struct.pack(f"<{len(columns)}i", *columns), struct.pack(f"<{len(starts)}q", *starts)]
    sizes = [len(columns), len(starts)]
    ends = [len(parts[0]), len(parts[0]) + len(parts[1])]
    header = json.dumps(
        {
            name: {
                "dtype": dtypes[i],
                "shape": [sizes[i]],
                "data_offsets": [[0, ends[0]][i], ends[i]],
            }
            for i, name in enumerate(("columns", "starts"))
        }
    ).encode()
    content = struct.pack("<Q", len(header)) + header + b"".join(parts)
    path = folder / "plan.json"
    (folder / "tables.safetensors").write_bytes(content)
    values = json.loads(path.read_text()) | {"tables_sha256": sha256(content).hexdigest()}
    path.write_text(json.dumps(values))
    found = outcome(pipe, folder)
    if (columns, starts, dtypes) == ([0, 2, 5, 1], [0, 3, 4], ("I32", "I64")):
        assert found == "plan"


def broken(data: st.DataObject, content: bytes) -> bytes:
    """Bytes cut off, changed, put in or left out."""
    kind = data.draw(st.sampled_from(["cut", "change", "insert", "remove"]), label="kind")
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    new = data.draw(st.binary(min_size=1, max_size=4), label="bytes")
    return {
        "cut": content[:place],
        "change": content[:place] + new + content[place + len(new) :],
        "insert": content[:place] + new + content[place:],
        "remove": content[:place] + content[place + len(new) :],
    }[kind]
