"""The JSON of a plan: its text from its parts, and its parts from the text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import PlanError, SparseError
from sparsediff.plans.evidence import EVIDENCE, Evidence
from sparsediff.plans.file_limits import PLAN, TABLES, check_tables_name
from sparsediff.plans.fingerprint import FINGERPRINT, Fingerprint
from sparsediff.plans.misfit import Reader, read
from sparsediff.plans.records import record
from sparsediff.plans.strict_json import parse
from sparsediff.plans.table_document import (
    TABLE,
    buckets_reader,
    head_values,
    rows_of,
    stripes_reader,
)
from sparsediff.plans.values import optional, text
from sparsediff.search.patterns.pattern import Stripe
from sparsediff.search.patterns.pattern_table import PatternTable

FORMAT = 1
_SCHEMA = re.compile(r"sparsediff\.plan/([0-9]{1,9})")

# From the SHA-256 of the tables to the stripes in them, given the number of blocks of a row.
Tables = Callable[[str | None, int], Sequence[Stripe]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanDocument:
    """The three parts of a plan, as they are written."""

    table: PatternTable
    fingerprint: Fingerprint
    evidence: Evidence

    def text(self, tables_digest: str | None, *, alone: bool = False) -> str:
        """The JSON text, one line a layer; `tables_digest` of the file with the stripes, if any.

        With `alone` the stripes are in the text itself, so that it needs no file beside it.
        """
        table, rows = self.table, rows_of(self.table)
        tables: object = None if tables_digest is None else TABLES
        if alone and rows:
            tables = [stripe.columns for stripe in rows]
        values: dict[str, Any] = {
            "schema": f"sparsediff.plan/{FORMAT}",
            "grid": table.grid.sizes,
            "block_size": table.block_size,
            "starts": table.starts,
            "density": table.density,
            "dense_layers": table.dense_layers,
            "compensate": table.compensate,
            "tables": tables,
            "tables_sha256": tables_digest,
            "fingerprint": asdict(self.fingerprint),
            "evidence": asdict(self.evidence),
        }
        lines = [f'"{key}": {_json(value)}' for key, value in values.items()]
        return "{\n" + ",\n".join([*lines, f'"buckets": {self._buckets(rows)}']) + "\n}\n"

    def _buckets(self, rows: dict[Stripe, int]) -> str:
        buckets = [
            ",\n".join(_json([head_values(head, rows) for head in heads]) for heads in bucket)
            for bucket in self.table.buckets
        ]
        return "[" + ",\n".join(f"[\n{bucket}\n]" for bucket in buckets) + "]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def read_document(content: bytes, tables: Tables) -> PlanDocument:
    """The parts of a plan from its JSON text; `tables` reads the stripes, if it names any.

    Raises PlanError that names line and column, or the path of every value that is wrong.
    """
    values = parse(content, source=PLAN)
    _check_format(values)
    frame = read(_FRAME, values, source=PLAN)
    stripes: Sequence[Stripe] = ()
    blocks = block_count(frame["grid"].tokens, frame["block_size"])
    if isinstance(frame["tables"], list):
        stripes = read(
            lambda value, _: stripes_reader(blocks)(value, "tables"), frame["tables"], source=PLAN
        )
    elif frame["tables"] is not None:
        check_tables_name(frame["tables"])
        stripes = tables(frame["tables_sha256"], blocks)
    buckets = read(
        lambda value, _: buckets_reader(stripes)(value, "buckets"), frame["buckets"], source=PLAN
    )
    try:
        table = PatternTable(buckets=buckets, **{key: frame[key] for key in TABLE})
        return PlanDocument(
            table=table, fingerprint=frame["fingerprint"], evidence=frame["evidence"]
        )
    except SparseError as error:
        raise PlanError(f"{PLAN}: {error}") from None


def _check_format(values: object) -> None:
    schema = values.get("schema") if isinstance(values, Mapping) else None
    found = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if found is None:
        raise PlanError(
            f"{PLAN} is not a plan: it needs the schema 'sparsediff.plan/{FORMAT}'. Give the folder "
            f"that PatternPlan.save_pretrained wrote."
        )
    if int(found[1]) > FORMAT:
        raise PlanError(
            f"{PLAN} was made by a newer sparsediff ({found[1]}), this reads {FORMAT}; update "
            f"sparsediff."
        )
    if int(found[1]) < FORMAT:
        raise PlanError(f"{PLAN} has format {found[1]}, which never was; needs {FORMAT}.")


def _as_is(value: object, path: str) -> object:
    return value


def _values(**values: Any) -> dict[str, Any]:
    return {"tables": None, "tables_sha256": None} | values


_FRAME: Reader[dict[str, Any]] = record(
    _values,
    {
        "schema": text,
        **TABLE,
        "tables": _as_is,
        "tables_sha256": optional(text),
        "fingerprint": record(Fingerprint, FINGERPRINT),
        "evidence": record(Evidence, EVIDENCE),
        "buckets": _as_is,
    },
    may_lack=("tables", "tables_sha256"),
)
