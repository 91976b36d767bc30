"""A method's name and options as a file: how a student's attention was sparse when it was trained."""

from __future__ import annotations

import json
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Misfit, Reader, read, wrong
from sparsediff.plans.records import record
from sparsediff.plans.strict_json import parse
from sparsediff.plans.values import one_of
from sparsediff.search import METHODS, Method

SCHEMA = "sparsediff.method/1"
SPARSE_ATTENTION = "sparse_attention.json"


def method_text(method: Method) -> str:
    """The JSON text of a method.

    Raises SparseError for one that is more than a name and options, such as a plan's patterns.
    """
    if method.name not in METHODS:
        raise SparseError(
            f"method={method.name!r}: a student's file holds one of {', '.join(METHODS)}. Save a plan "
            f"with PatternPlan.save_pretrained, and the student without a method."
        )
    options = method.to_dict()
    options.pop("name")
    values = {"schema": SCHEMA, "method": method.name, "options": options}
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def read_method(content: bytes, *, source: str = SPARSE_ATTENTION) -> Method:
    """The method of a JSON text; raises PlanError that names `source` and what is wrong."""
    return read(_METHOD, parse(content, source=source), source=source)


def _options(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(value, path, "an object")
    return value


def _method(schema: str, method: str, options: dict[str, Any]) -> Method:
    try:
        return METHODS[method]().with_options(**options)
    except (SparseError, TypeError) as error:
        raise Misfit(f"options: {error}") from None


_READERS: dict[str, Reader[Any]] = {
    "schema": one_of(SCHEMA),
    "method": one_of(*METHODS),
    "options": _options,
}
_METHOD: Reader[Method] = record(_method, _READERS, may_lack=())
