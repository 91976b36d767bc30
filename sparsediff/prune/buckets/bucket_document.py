"""buckets.json: where buckets begin, the classes of their models, and which tensors they share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Reader, read, shown
from sparsediff.plans.records import listed, record, texts
from sparsediff.plans.strict_json import parse
from sparsediff.plans.values import number, one_of, text
from sparsediff.prune.buckets.timestep_buckets import Buckets

SCHEMA = "sparsediff.bucketed-model/1"
BUCKETS = "buckets.json"

# By bucket and name of a tensor, the tensor that it is: "bucket/name" of an earlier bucket.
Shared = list[dict[str, str]]
Document = tuple[Buckets, tuple[str, ...], Shared]


def document_text(buckets: Buckets, classes: Sequence[str], shared: Shared) -> str:
    """The JSON text."""
    values = {
        "schema": SCHEMA,
        "boundaries": list(buckets.boundaries),
        "classes": list(classes),
        "shared": shared,
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def read_document(path: Path) -> Document:
    """Buckets, a class for each, and what each shares; SparseError for any other file."""
    values = parsed(path)
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise SparseError(f"{path} has the schema {shown(schema)}; needs {SCHEMA!r}.")
    return read(_DOCUMENT, values, source=str(path))


def parsed(path: Path) -> object:
    """The value of a JSON file; SparseError where it cannot be read."""
    try:
        return parse(path.read_bytes(), source=str(path))
    except OSError as error:
        raise SparseError(
            f"{path} cannot be read: {error}. Needs a folder of BucketedModel.save_pretrained."
        ) from error


def _whole(
    schema: str,
    boundaries: tuple[float, ...],
    classes: tuple[str, ...],
    shared: tuple[dict[str, str], ...],
) -> Document:
    buckets = Buckets(boundaries=boundaries)
    if len(classes) != buckets.count or len(shared) != buckets.count:
        raise SparseError(
            f"{len(classes)} classes, {len(shared)} lists of shared tensors for "
            f"{buckets.count} buckets; needs one for each."
        )
    return buckets, classes, list(shared)


_DOCUMENT: Reader[Document] = record(
    _whole,
    {
        "schema": one_of(SCHEMA),
        "boundaries": listed(number(-1e6, 1e6)),
        "classes": listed(text, least=1),
        "shared": listed(texts, least=1),
    },
    may_lack=(),
)
