"""PlanReport: everything that a folder with a plan tells, of which parts may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search import costs, profiles, result
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.plan_sweep import PlanSweep
from sparsediff.plan_videos import PlanVideos
from sparsediff.plans.file_limits import PLAN
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.plans.strict_json import parse
from sparsediff.search.offline.cost import Cost
from sparsediff.search.offline.profile import ProfileRecord
from sparsediff.search.offline.sampled_steps import SampledSteps
from sparsediff.search.patterns.pattern import MODES, MultiDiagonal, Pattern
from sparsediff.search.patterns.pattern_mask import pattern_density

SCHEMA = "sparsediff.plan-report/1"
# What the page reads of search.json.
_SEARCH = {"lambda": int | float, "limit": str | None, "probes": list}
Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlanReport:
    """``plan`` and what the folder of its search holds besides; None for what is not there.

    ``search`` the content of search.json; ``profile`` the attention of all prompts; ``sweep`` plans at
    other prices; ``costs`` by heads and head dim; ``videos``; ``missing`` a sentence for each part that
    is not there or cannot be read.
    """

    name: str
    plan: PatternPlan
    search: Mapping[str, Any] | None = None
    profile: ProfileRecord | None = None
    sweep: PlanSweep | None = None
    costs: Mapping[tuple[int, int], Cost] = field(default_factory=dict)
    videos: PlanVideos | None = None
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, *, videos: Path | None = None) -> PlanReport:
        """Read a folder; `videos` is another one with a dense video and the plan's.

        Raises SparseError when there is no plan, or the plan cannot be read.
        """
        if not folder.is_dir():
            raise SparseError(f"There is no folder {folder}; give one that holds a plan.")
        if not (folder / PLAN).is_file() and (folder / "settings.json").is_file():
            raise SparseError(
                f"The search in {folder} has not ended, so there is no plan yet. Go on with it: "
                f"sparsediff search --resume {folder}"
            )
        plan = PatternPlan.from_pretrained(folder)
        parts = _Parts(RunFolder(path=folder), plan)
        pair = PlanVideos.beside(videos or folder)
        if pair is None and videos is not None:
            raise SparseError(
                f"{videos} holds no dense and sparse video; needs the folder that sparsediff "
                f"generate MODEL --plan {folder} --compare wrote."
            )
        search = parts.read("figures of the search", "search.json", parts.search)
        return cls(
            name=folder.resolve().name,
            plan=plan,
            search=search,
            profile=parts.read("attention maps", "units of profiles", parts.profile),
            sweep=parts.read("trials", result.TRIALS, lambda: parts.sweep(search)),
            costs=parts.read("costs", costs.FILE, parts.costs) or {},
            videos=pair or parts.read("videos", "videos", parts.videos),
            missing=tuple(parts.missing),
        )

    def density(self, pattern: Pattern) -> float:
        """Share of all block pairs that a pattern of this plan computes."""
        table = self.plan.table
        return pattern_density(pattern, table.grid, table.block_size)

    def cost(self, layer: int, pattern: Pattern) -> float | None:
        """A pattern's share of the dense call's time, as the search counted it."""
        shapes = costs.shapes_of(self.plan.fingerprint)
        cost = self.costs.get(shapes[layer])
        if cost is None:
            return None
        moved = isinstance(pattern, MultiDiagonal) and pattern.by_place
        return cost.share(MODES[type(pattern)], self.density(pattern), by_place=moved)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values: figures, not the patterns, which are in the plan's own files."""
        return {
            "schema": SCHEMA,
            "plan": self.plan.to_dict(),
            "search": None if self.search is None else dict(self.search),
            "sweep": None if self.sweep is None else self.sweep.to_dict(),
            "heads": [
                [[self._head(layer, head) for head in heads] for layer, heads in enumerate(bucket)]
                for bucket in self.plan.table.buckets
            ],
            "missing": list(self.missing),
        }

    def _head(self, layer: int, head: Any) -> dict[str, Any]:
        return {
            "mode": MODES[type(head.pattern)],
            "density": round(self.density(head.pattern), 4),
            "error": head.error,
        }


class _Parts:
    """Reads the optional parts; what fails is noted and left out."""

    def __init__(self, folder: RunFolder, plan: PatternPlan) -> None:
        self.folder = folder
        self.plan = plan
        self.missing: list[str] = []

    def read(self, words: str, name: str, part: Callable[[], Part | None]) -> Part | None:
        try:
            found = part()
        except (SparseError, OSError, ValueError, KeyError, TypeError) as error:
            said = str(error) if isinstance(error, SparseError) else f"{name} is damaged"
            self.missing.append(f"No {words}: {said}")
            return None
        if found is None:
            self.missing.append(f"No {words}: the folder holds no {name}.")
        return found

    def search(self) -> dict[str, Any] | None:
        path = self.folder.path / "search.json"
        if not path.is_file():
            return None
        found = parse(path.read_bytes(), source=path.name)
        if not isinstance(found, dict) or found.get("schema") != result.SCHEMA:
            raise SparseError("search.json is not what this version of sparsediff writes.")
        for key, kinds in _SEARCH.items():
            if not isinstance(found.get(key), kinds):
                raise SparseError(f"search.json: {key} is {found.get(key)!r}.")
        if not all(map(_is_probe, found["probes"])):
            raise SparseError("search.json: a probe is no density with its figure.")
        return found

    def profile(self) -> ProfileRecord | None:
        done = self.folder.units.done(profiles.STAGE)
        if not done:
            return None
        record = profiles.Profiles.of(self.folder.units, done).record
        table = self.plan.table
        expected = {n: (len(table.starts), heads) for n, heads in enumerate(table.heads)}
        if {n: tuple(x.maps.shape[:2]) for n, x in record.layers.items()} != expected:
            raise SparseError("the profiles are of another model, or of other parts of the run.")
        return record

    def sweep(self, search: Mapping[str, Any] | None) -> PlanSweep | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder.path / result.TRIALS
        if not path.is_file():
            return None
        price = None if search is None else search.get("lambda")
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise SparseError(f"{path.name} is damaged: {error}.") from error
        return PlanSweep.of(tensors, steps_of(self.plan), price)

    def costs(self) -> dict[tuple[int, int], Cost] | None:
        return costs.read_costs(self.folder) if (self.folder.path / costs.FILE).is_file() else None

    def videos(self) -> PlanVideos | None:
        return PlanVideos.of_search(self.folder, self.plan.evidence.prompts, self.plan.table)


def steps_of(plan: PatternPlan) -> list[int]:
    """How many steps every part of the run has; one each where nobody knows."""
    total = plan.fingerprint.steps
    starts = plan.table.starts
    found = SampledSteps(starts=starts).steps(total) if total else []
    return found if sum(found) else [1] * len(starts)


def _is_probe(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("density"), int | float)
        and isinstance(value.get("figure", ""), int | float | None)
    )
