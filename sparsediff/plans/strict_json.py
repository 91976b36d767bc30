"""Strict JSON: the text of a plan as plain values, or one sentence that says where it is wrong."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from sparsediff.kernels.errors import PlanError

_DIGITS = 19  # of a whole number: what 64 bits hold


def parse(data: bytes, *, source: str) -> object:
    """The value of a JSON text in UTF-8; `source` names the file in errors.

    Stricter than Python's reader: NaN, Infinity, numbers beyond 64 bits and keys that come twice are
    refused. Raises PlanError with line and column where the text is not JSON at all.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(
            f"{source}: byte {error.start} is not UTF-8; the file is broken or no JSON."
        ) from None
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise PlanError(
            f"{source}: line {error.lineno} column {error.colno}: {error.msg}. The file is cut off or "
            f"was edited by hand; save the plan again."
        ) from None
    except RecursionError:
        raise PlanError(f"{source}: lists or objects are nested too deep for a plan.") from None
    except _Refused as error:
        raise PlanError(f"{source}: {error}") from None


class _Refused(Exception):
    """What the text says is JSON to Python but not to us."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise _Refused(f"the key {twice[:60]!r} comes twice in one object; needs it once.")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _Refused(f"the number {digits[:_DIGITS]}... has more than {_DIGITS} digits.")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise _Refused(f"the number {digits[:30]} is too large.")
    return value


def _constant(name: str) -> float:
    raise _Refused(f"{name} is not a number that a plan may hold; needs a finite one.")
