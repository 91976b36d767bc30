"""Settings: what a person chose in the page, checked, and as the address of a run to be shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from sparsediff.kernels.errors import SparseError

LONGEST_PROMPT = 2000
# What one person may ask of a machine that others may be waiting for.
_WHOLE = {
    "seed": (0, 2**53 - 1),  # a browser counts no further
    "steps": (1, 500),
    "width": (8, 4096),
    "height": (8, 4096),
    "frames": (1, 1025),
}
_PRESETS = {"careful": (0.45, 0.3), "balanced": (0.25, 0.2), "fast": (0.15, 0.2)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One run as the page describes it; None leaves a value to the model's recipe.

    ``method`` names a method or a plan that the app knows, never a file; ``density`` and ``warmup``
    are those of the method, which a plan has itself; ``gate`` as in `enable_sparse_attention`.
    Raises SparseError for a value of the wrong kind or out of range.
    """

    prompt: str = ""
    method: str = "adaspa"
    density: float = 0.25
    warmup: float = 0.2
    seed: int = 0
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    gate: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or len(self.prompt) > LONGEST_PROMPT:
            raise SparseError(f"The prompt needs at most {LONGEST_PROMPT} characters; shorten it.")
        if not isinstance(self.method, str):
            raise SparseError(f"method={self.method!r}: needs the name of a method.")
        for name in ("prompt", "method"):
            check_characters(name, getattr(self, name))
        for name, (least, most) in _WHOLE.items():
            value = _whole(name, getattr(self, name), least, most, optional=name != "seed")
            object.__setattr__(self, name, value)
        _check_share("density", self.density, 0 < _number("density", self.density) <= 1, "(0, 1]")
        _check_share("warmup", self.warmup, 0 <= _number("warmup", self.warmup) < 1, "[0, 1)")
        if not isinstance(self.gate, bool):
            raise SparseError(f"gate={self.gate!r}: needs True or False.")

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Settings:
        """The settings of an address; words that are none of ours belong to the page and are left.

        Raises SparseError for a value that cannot be read.
        """
        kinds: dict[str, Any] = {"prompt": str, "method": str, "gate": lambda text: text != "0"}
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in query:
                values[field.name] = kinds.get(field.name, _read_number)(query[field.name])
        return cls(**values)

    def query(self) -> str:
        """What follows the question mark of an address; as short as it can be."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {
            name: f"{value:d}" if isinstance(value, bool) else value
            for name, value in values.items()
            if value is not None and (name == "prompt" or value != _DEFAULTS[name])
        }
        return urlencode(given)

    @property
    def call(self) -> dict[str, Any]:
        """The pipeline arguments that were chosen, by the pipeline's names."""
        names = {"steps": "num_inference_steps", "frames": "num_frames"}
        chosen = {n: getattr(self, n) for n in ("steps", "width", "height", "frames")}
        return {names.get(n, n): value for n, value in chosen.items() if value is not None}

    @property
    def dense_key(self) -> tuple[Any, ...]:
        """What a dense run depends on, on one model."""
        return (self.prompt, self.seed, self.steps, self.width, self.height, self.frames)


_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def presets() -> dict[str, tuple[float, float]]:
    """Density and dense share of the steps by the name of a preset, the safest first."""
    return dict(_PRESETS)


def check_characters(name: str, text: str) -> None:
    """Raise SparseError for half a character, which JSON can say and no file, address or page can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SparseError(
            f"{name}: character {error.start + 1} is only half of one; delete it and type it again."
        ) from None


def _read_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SparseError(f"{text[:40]!r} in the address is not a number.") from None


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SparseError(f"{name}={value!r}: needs a number.")
    return float(value)


def _check_share(name: str, value: object, fits: bool, needed: str) -> None:
    if not fits:
        raise SparseError(f"{name}={value!r}: needs a share in {needed}.")


def _whole(name: str, value: object, least: int, most: int, *, optional: bool) -> int | None:
    """A whole number; browsers send 20 as 20.0, and an empty field as None."""
    if value is None and optional:
        return None
    number = _number(name, value)
    if not least <= number <= most or number != int(number):
        raise SparseError(f"{name}={value!r}: needs a whole number from {least} to {most}.")
    return int(number)
