"""Where a student is: its folder, or that of the Hub's cache which its repository was loaded into."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsediff.distill.student.saved_method import SPARSE_ATTENTION, read_method
from sparsediff.distill.student.student_adapter import WEIGHTS
from sparsediff.distill.student.student_card import CARD, StudentCard
from sparsediff.distill.student.visited_grid import check_grid
from sparsediff.kernels.errors import PlanError
from sparsediff.plans.file_limits import refuse_pickles
from sparsediff.plans.hub_plan import asked_of_hub
from sparsediff.plans.misfit import shown
from sparsediff.plans.plan_source import looks_like_hub_id
from sparsediff.plans.strict_json import parse
from sparsediff.search import Method

_MOST_BYTES = 4 * 2**20  # of a JSON file; a card has a few thousand
_SCHEDULER = "scheduler/scheduler_config.json"
# Nothing else of a repository is fetched: no pickle, and no checkpoint of the training.
_FETCHED = [CARD, SPARSE_ATTENTION, _SCHEDULER, WEIGHTS]
_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "DDIMScheduler", "CogVideoXDDIMScheduler")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentSource:
    """The files of one student in a folder; ``label`` is what errors call it.

    ``on_hub``: the folder is one of the Hub's cache, ``label`` the repository's id.
    """

    folder: Path
    label: str
    on_hub: bool = False
    token: str | bool | None = None

    @classmethod
    def of(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> StudentSource:
        """The student in a folder, or of a Hub id such as "user/student".

        Raises PlanError when it is neither.
        """
        given = os.fspath(source)
        path = Path(given).expanduser()
        if path.is_dir():
            return cls(folder=path, label=given)
        if not isinstance(source, str) or path.exists() or not looks_like_hub_id(given):
            raise PlanError(
                f"There is no student at {given!r:.200}: needs the folder that holds {CARD}, or a Hub "
                f"id such as user/student."
            )
        folder = _fetched(given, revision, token, _FETCHED)
        return cls(folder=folder, label=given, on_hub=True, token=token)

    def card(self) -> StudentCard:
        """Its card; raises PlanError that names file and place of what is wrong."""
        return StudentCard.read(self._json(CARD), source=CARD)

    def method(self, card: StudentCard) -> Method | None:
        """The sparse attention it was trained with, None for dense."""
        if card.method is None:
            return None
        method = read_method(self._json(SPARSE_ATTENTION), source=SPARSE_ATTENTION)
        if method.name != card.method:
            raise PlanError(
                f"{SPARSE_ATTENTION} says {method.name!r}, but {CARD} {card.method!r}: the files are "
                f"of two students."
            )
        return method

    def scheduler(self, card: StudentCard) -> Any:
        """Its scheduler, of one of the stock classes that students have.

        Raises PlanError unless its configuration makes the grid of the card, where it alone does.
        """
        import diffusers

        values = parse(self._json(_SCHEDULER), source=_SCHEDULER)
        name = values.get("_class_name") if isinstance(values, dict) else None
        if name not in _SCHEDULERS:
            raise PlanError(
                f"{_SCHEDULER}: _class_name = {shown(name)}: needs one of {', '.join(_SCHEDULERS)}."
            )
        try:
            made = getattr(diffusers, name).from_config(values)
            alone = not (card.own_sigmas or made.config.get("use_dynamic_shifting"))
            if alone:
                made.set_timesteps(card.steps)
        except (TypeError, ValueError, NotImplementedError, ZeroDivisionError) as error:
            raise PlanError(f"{_SCHEDULER}: {error}") from error
        if alone:
            check_grid(made, card, _SCHEDULER)
        return made

    def require_weights(self, card: StudentCard) -> None:
        """Raise PlanError unless the student's weights are there; a whole model is fetched only now."""
        name = WEIGHTS if card.rank is not None else card.component
        if card.rank is None and self.on_hub:
            # The cache names a folder by its commit, so that all files are of one.
            wanted = [f"{name}/*.json", f"{name}/*.safetensors"]
            _fetched(self.label, self.folder.name, self.token, wanted)
        if not (self.folder / name).exists():
            raise PlanError(f"it has no {name}, so it is not a whole student.")

    def _json(self, name: str) -> bytes:
        path = self.folder / name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
                raise PlanError(f"{name} is no plain file of less than {_MOST_BYTES} bytes.")
            content = path.read_bytes()
        except FileNotFoundError:
            raise PlanError(
                f"it has no {name}, so it is not a whole student. Give the folder that "
                f"`sparsediff distill` wrote."
            ) from None
        except OSError as error:
            raise PlanError(f"{name} could not be read: {error}") from None
        refuse_pickles(name, content[:8])
        return content


def _fetched(
    repo_id: str, revision: str | None, token: str | bool | None, names: list[str]
) -> Path:
    from huggingface_hub import snapshot_download

    def fetch() -> str:
        return str(snapshot_download(repo_id, revision=revision, token=token, allow_patterns=names))

    return Path(asked_of_hub(f"The student {repo_id!r}", fetch))
