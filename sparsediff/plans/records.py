"""Readers of lists and objects; they collect the misfits of all their parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import ENOUGH, Misfit, Reader, Value, gathered, wrong
from sparsediff.plans.values import text

_LONGEST_KEY = 60


def listed(inner: Reader[Value], *, least: int = 0) -> Reader[tuple[Value, ...]]:
    """A list of what `inner` reads, as a tuple."""

    def reader(value: object, path: str) -> tuple[Value, ...]:
        if not isinstance(value, list | tuple) or len(value) < least:
            raise wrong(value, path, f"a list of at least {least}" if least else "a list")
        return tuple(gathered((inner, item, f"{path}[{i}]") for i, item in enumerate(value)))

    return reader


def texts(value: object, path: str) -> dict[str, str]:
    """An object whose values are all texts."""
    if not isinstance(value, Mapping):
        raise wrong(value, path, "an object")
    keys = gathered((text, key, f"a key of {path}") for key in value)
    items = gathered((text, item, _member(path, str(key))) for key, item in value.items())
    return dict(zip(keys, items, strict=True))


def record(
    build: Callable[..., Value],
    readers: Mapping[str, Reader[Any]],
    *,
    may_lack: Collection[str] | None = None,
) -> Reader[Value]:
    """An object with these keys and no others, as what `build` makes of its values.

    Keys in `may_lack` may be missing; by default those of a dataclass's fields that have defaults.
    """
    lacking = _defaulted(build) if may_lack is None else may_lack

    def reader(value: object, path: str) -> Value:
        if not isinstance(value, dict):
            raise wrong(value, path, "an object")
        where = path or "the document"
        unknown = islice((key for key in value if key not in readers), ENOUGH + 1)
        problems = [_unknown(key, readers, where) for key in unknown]
        needed = (key for key in readers if key not in value and key not in lacking)
        problems += [f"{where} has no key {key!r}." for key in needed]
        given = [key for key in readers if key in value]
        try:
            found = gathered((readers[key], value[key], _member(path, key)) for key in given)
        except Misfit as error:
            problems += error.problems
        if problems:
            raise Misfit(*problems)
        try:
            return build(**dict(zip(given, found, strict=True)))
        except SparseError as error:
            raise Misfit(f"{where}: {error}") from None

    return reader


def _member(path: str, key: str) -> str:
    return f"{path}.{key[:_LONGEST_KEY]}" if path else key[:_LONGEST_KEY]


def _unknown(key: str, known: Collection[str], where: str) -> str:
    near = get_close_matches(key[:_LONGEST_KEY], known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{where} has an unknown key {key[:_LONGEST_KEY]!r}; it may hold {', '.join(known)}.{hint}"
    )


def _defaulted(build: Any) -> set[str]:
    missing = dataclasses.MISSING
    return {
        field.name
        for field in dataclasses.fields(build)
        if field.default is not missing or field.default_factory is not missing
    }
