"""Misfit: a value of a plan that is not what it has to be, with the path that leads to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sparsediff.kernels.errors import PlanError, SparseError

Value = TypeVar("Value")
# From a plain value and its path to what it stands for; raises Misfit.
Reader = Callable[[object, str], Value]

ENOUGH = 5  # problems that are shown; a broken file repeats itself
_SHOWN = 60  # characters of a wrong value


class Misfit(Exception):
    """Values that are not what their readers need; ``problems`` says so, one sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        shown = " ".join(self.problems[:ENOUGH])
        return f"{shown} And more." if len(self.problems) > ENOUGH else shown


def read(reader: Reader[Value], value: object, *, source: str) -> Value:
    """What `value` stands for; raises PlanError that names `source` and the paths."""
    try:
        return reader(value, "")
    except Misfit as error:
        raise PlanError(f"{source}: {error}") from None


def check(record: object, readers: Mapping[str, Reader[Any]]) -> None:
    """Raise SparseError unless every field of a dataclass is what its reader needs."""
    name = type(record).__name__
    try:
        gathered((reader, getattr(record, key), f"{name}.{key}") for key, reader in readers.items())
    except Misfit as error:
        raise SparseError(str(error)) from None


def gathered(parts: Iterable[tuple[Reader[Any], object, str]]) -> list[Any]:
    """What every part reads as; raises one Misfit with the problems of all, as far as shown."""
    found: list[Any] = []
    problems: list[str] = []
    for reader, value, path in parts:
        try:
            found.append(reader(value, path))
        except Misfit as error:
            problems += error.problems
            if len(problems) > ENOUGH:
                break
    if problems:
        raise Misfit(*problems)
    return found


def wrong(value: object, path: str, need: str) -> Misfit:
    """The misfit of one value."""
    return Misfit(f"{path or 'the document'} = {shown(value)}: needs {need}.")


def shown(value: object) -> str:
    """A value in an error: short, and on one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}..."
    if isinstance(value, int | float):
        return repr(value)[:_SHOWN] if abs(value) < 10**_SHOWN else "a number of many digits"
    return f"a {type(value).__name__}"
