"""Readers of single values: numbers within a range, words, texts."""

from __future__ import annotations

from difflib import get_close_matches
from math import inf, isfinite

from sparsediff.plans.misfit import Reader, Value, wrong

_LONGEST_WORD = 60


def whole(least: int, most: int) -> Reader[int]:
    """A whole number in a closed range; True is not a number."""

    def reader(value: object, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise wrong(value, path, f"a whole number from {least} to {most}")
        return value

    return reader


def number(
    least: float, most: float = inf, *, above: bool = False, below: bool = False
) -> Reader[float]:
    """A finite number in a range; with `above` and `below` without its lower and upper end."""
    need = f"a number {'>' if above else '>='} {least:g}"
    if most < inf:
        need += f" and {'<' if below else '<='} {most:g}"

    def reader(value: object, path: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong(value, path, need)
        # Comparing first: a whole number may be too large for a float.
        inside = least <= value <= most and not (above and value == least)
        if not inside or (below and value == most) or value > 2**1000 or not isfinite(value):
            raise wrong(value, path, need)
        return float(value)

    return reader


def flag(value: object, path: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong(value, path, "true or false")
    return value


def text(value: object, path: str) -> str:
    """A text that can be written and shown: whole characters, and no control characters."""
    if not isinstance(value, str):
        raise wrong(value, path, "a text")
    for c in value:
        if (c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff":
            raise wrong(value, path, "a text without control characters and lone surrogates")
    return value


def one_of(*names: str) -> Reader[str]:
    """One of some words; the error names the nearest."""

    def reader(value: object, path: str) -> str:
        if not isinstance(value, str) or value not in names:
            known = value[:_LONGEST_WORD] if isinstance(value, str) else ""
            near = get_close_matches(known, names, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise wrong(value, path, f"one of {', '.join(names)}{hint}")
        return value

    return reader


def optional(inner: Reader[Value]) -> Reader[Value | None]:
    """What `inner` reads, or null."""

    def reader(value: object, path: str) -> Value | None:
        return None if value is None else inner(value, path)

    return reader
