"""Checks that the settings of trainings share: every error names the setting and what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from sparsediff.kernels.errors import SparseError

S = TypeVar("S")


def settings_from(cls: type[S], values: Mapping[str, Any], *, source: str) -> S:
    """Settings of a dataclass as JSON holds them; SparseError, naming `source`, for wrong ones."""
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SparseError(f"{source} has an unknown setting {key!r}.{hint}")
    try:
        return cls(**values)
    except SparseError as error:
        raise SparseError(f"{source}: {error}") from None


def settings_dict(settings: Any) -> dict[str, Any]:
    """The fields of settings as JSON holds them."""
    values = asdict(settings)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def texts(name: str, values: object) -> tuple[str, ...]:
    """A list of texts, none of them empty, as a tuple: JSON has no tuples."""
    if not isinstance(values, list | tuple) or not all(
        isinstance(text, str) and text.strip() for text in values
    ):
        raise SparseError(f"{name}={values!r}: needs a list of texts.")
    return tuple(values)


def check_named(name: str, value: object) -> None:
    """Values by name."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SparseError(f"{name}={value!r}: needs values by name, such as {{'height': 480}}.")


def check_bool(name: str, value: object) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise SparseError(f"{name}={value!r}: needs true or false.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """One of some words."""
    if value not in choices:
        raise SparseError(f"{name}={value!r}: needs one of {', '.join(choices)}.")


def check_whole(name: str, value: object, *, least: int) -> None:
    """A whole number, not smaller than `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SparseError(f"{name}={value!r}: needs a whole number >= {least}.")


def check_real(
    name: str, value: object, low: float, high: float, *, optional: bool = False
) -> None:
    """A number in a range; with `optional` also None."""
    if value is None and optional:
        return
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not low <= value <= high:  # type: ignore[operator]
        raise SparseError(f"{name}={value!r}: needs a number in {low:g} .. {high:g}.")
