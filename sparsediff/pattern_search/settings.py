"""SearchSettings: everything that makes the result of a search, so that a resumed one is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.options import SearchOptions

SCHEMA = "sparsediff.search-settings/1"
PACKAGES = ("sparsediff", "torch", "diffusers")
_FREE = ("model", "budget", "command")  # may change between two runs: see `differences`


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """The settings of one search.

    ``model`` folder or Hub id; ``weights`` their hash, empty before they are read; prompt number i
    uses seed ``seed + i``; ``call`` arguments of the pipeline; ``device`` its kind; ``versions`` of the
    packages that compute; ``command`` that began it, without budget and output.

    Raises SparseError for unknown keys and values of the wrong kind.
    """

    model: str
    prompts: tuple[str, ...]
    budget: Budget
    options: SearchOptions = field(default_factory=SearchOptions)
    seed: int = 0
    call: Mapping[str, Any] = field(default_factory=dict)
    autocast: str | None = None
    dtype: str
    device: str
    backend: str = "auto"
    weights: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not all(isinstance(p, str) for p in self.prompts):
            raise SparseError("A search needs at least one calibration prompt, each a text.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63 - len(self.prompts):
            raise SparseError(f"seed={self.seed!r}: needs a whole number from 0 to 2^63 - 1.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {
            "prompts": list(self.prompts),
            "budget": self.budget.to_dict(),
            "options": self.options.to_dict(),
            "call": dict(self.call),
            "versions": dict(self.versions),
        }
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> SearchSettings:
        """Read what `to_dict` made; `source` names it in errors."""
        if values.get("schema") != SCHEMA:
            raise SparseError(
                f"{source} holds no settings of a search: its schema is {values.get('schema')!r}; "
                f"needs {SCHEMA!r}."
            )
        given = {key: value for key, value in values.items() if key != "schema"}
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise SparseError(f"{source} has an unknown key {key!r}.{hint}")
        try:
            given["budget"] = Budget(**given["budget"])
            given["options"] = SearchOptions.from_dict(given["options"])
            given["prompts"] = tuple(given["prompts"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise SparseError(f"{source} is incomplete or damaged: {error}.") from None
        except SparseError as error:
            raise SparseError(f"{source}: {error}") from None

    def with_weights(self, weights: str) -> SearchSettings:
        """A copy that knows the hash of the weights."""
        return replace(self, weights=weights)

    def differences(self, other: SearchSettings) -> list[str]:
        """What makes the result of `other` another one, a phrase each, "here" against "there".

        The name of the model may differ, because its weights are compared and a folder may have
        moved; so may the budget, because the work done does not depend on it.
        """
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        found = []
        for key in sorted(mine.keys() | theirs.keys()):
            if key.partition(".")[0] in _FREE:
                continue
            if key == "weights" and not (self.weights and other.weights):
                continue
            if mine.get(key) != theirs.get(key):
                found.append(f"{key} is {_short(mine.get(key))}, now {_short(theirs.get(key))}")
        return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value:
            flat |= {f"{prefix}{key}[{number}]": entry for number, entry in enumerate(value)}
        else:
            flat[prefix + key] = value
    return flat


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
