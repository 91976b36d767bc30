"""StudentCard: what a distilled student is, as JSON that is read value by value."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from sparsediff.kernels.errors import PlanError, PlanMismatchError, SparseError
from sparsediff.plans.fingerprint import FINGERPRINT, Fingerprint
from sparsediff.plans.misfit import Reader, check, read, shown, wrong
from sparsediff.plans.records import listed, record, texts
from sparsediff.plans.strict_json import parse
from sparsediff.plans.values import flag, number, one_of, optional, text, whole

logger = logging.getLogger("sparsediff")

SCHEMA = "sparsediff.student/1"
CARD = "sparsediff_student.json"

_MOST = 1e9  # of any figure: more is a broken file


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentCard:
    """What a student was made from and how it has to be run.

    ``component`` of the pipeline that was trained, such as "transformer"; ``base`` the fingerprint of
    the pipeline it was trained on. ``steps`` of a run and the grid that they visit: ``timesteps`` that
    the model is told, one a step, and ``sigmas``, the share of noise at the start of each step and 0 at
    the end. ``own_sigmas``: the pipeline makes them, for the size it was trained at. ``method`` the
    name of its sparse attention, whose options are in a file of their own; None for dense.

    ``teacher_guidance`` the guidance scale that it has learnt, ``guidance`` the one it is run with,
    as the argument ``guidance_name`` of its pipeline.
    ``rank`` and ``alpha`` of the LoRA, None where all weights were trained. ``figures`` of the training
    and its evaluation, by name; ``command`` and ``versions`` it was made with.

    Raises SparseError for a value of the wrong kind.
    """

    component: str
    base: Fingerprint
    steps: int
    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    own_sigmas: bool = False
    method: str | None = None
    teacher_guidance: float | None = None
    guidance: float = 1.0
    guidance_name: str = "guidance_scale"
    rank: int | None = None
    alpha: float | None = None
    model: str | None = None
    command: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, _OWN)
        for name in ("timesteps", "sigmas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("figures", "versions"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        if not isinstance(self.base, Fingerprint):
            raise SparseError("StudentCard.base: needs a Fingerprint of the pipeline.")
        if len(self.timesteps) != self.steps or len(self.sigmas) != self.steps + 1:
            raise SparseError(
                f"{len(self.timesteps)} timesteps and {len(self.sigmas)} sigmas for {self.steps} "
                f"steps; needs one timestep a step, and one sigma more."
            )
        if not all(a > b for a, b in pairwise(self.sigmas)):
            raise SparseError(f"sigmas={list(self.sigmas)}: needs sigmas that fall.")
        if (self.rank is None) != (self.alpha is None):
            raise SparseError("rank and alpha: needs both, or neither.")

    def text(self) -> str:
        """The JSON text."""
        values = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, content: bytes, *, source: str = CARD) -> StudentCard:
        """The card of a JSON text; raises PlanError that names `source` and what is wrong where."""
        values = parse(content, source=source)
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise PlanError(
                f"{source} is not a student's card that this sparsediff reads: schema = "
                f"{shown(schema)}, needs {SCHEMA!r}. If the student is newer, update sparsediff."
            )
        return read(_DOCUMENT, values, source=source)


def check_base(card: StudentCard, found: Fingerprint) -> None:
    """Raise PlanMismatchError unless `found` is of the architecture that a student was trained on.

    Other weights of the same architecture are warned of.
    """
    differences = card.base.differences(found, owner="the student")
    if differences:
        raise PlanMismatchError(
            f"This student was trained on another model. {'; '.join(differences)}. Load the model "
            f"that its card names, or distil this one: sparsediff distill MODEL."
        )
    mine, theirs = card.base.weights, found.weights
    if None not in (mine, theirs) and mine != theirs:
        logger.warning(
            "this student was trained on other weights (%s) than this model has (%s); what it makes "
            "of them was never looked at",
            str(mine)[:12],
            str(theirs)[:12],
        )


def _figures(value: object, path: str) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise wrong(value, path, "an object")
    one = number(-_MOST, _MOST)
    return {
        text(key, f"a key of {path}"): one(item, f"{path}.{key}") for key, item in value.items()
    }


def _component(value: object, path: str) -> str:
    name = text(value, path)
    if not name.isidentifier():  # it becomes an attribute's and a folder's name
        raise wrong(value, path, "the name of a part of a pipeline, such as transformer")
    return name


def _argument(value: object, path: str) -> str:
    name = text(value, path)
    if not name.isidentifier():  # it becomes the name of an argument
        raise wrong(value, path, "the name of an argument, such as guidance_scale")
    return name


_OWN: dict[str, Reader[Any]] = {
    "component": _component,
    "steps": whole(1, 10**4),
    "timesteps": listed(number(0, 10**6), least=1),
    "sigmas": listed(number(0, 1), least=2),
    "own_sigmas": flag,
    "method": optional(text),
    "teacher_guidance": optional(number(0, 1000)),
    "guidance": number(0, 1000),
    "guidance_name": _argument,
    "rank": optional(whole(1, 10**6)),
    "alpha": optional(number(0, _MOST, above=True)),
    "model": optional(text),
    "command": optional(text),
    "figures": _figures,
    "versions": texts,
}


def _card(schema: str, **values: Any) -> StudentCard:
    return StudentCard(**values)


_DOCUMENT: Reader[StudentCard] = record(
    _card,
    {"schema": one_of(SCHEMA), **_OWN, "base": record(Fingerprint, FINGERPRINT)},
    may_lack=_OWN.keys() - {"component", "steps", "timesteps", "sigmas"},
)
