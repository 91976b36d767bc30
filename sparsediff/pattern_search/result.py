"""SearchResult: the plan that a search found, and how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import Tensor

from sparsediff.pattern_search.probing import Probe
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.pattern_search.trials import Candidates
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.search.offline.choice import Choice
from sparsediff.search.offline.trial_record import TrialRecord
from sparsediff.search.patterns.pattern import MODES

SCHEMA = "sparsediff.search-result/1"
TRIALS = "trials.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """``plan``; the ``choice`` it is made of; whether it meets the budget, and if not, ``limit`` why.

    ``prompts`` numbers of the calibration prompts it rests on, of all in the settings; ``probes``
    plans that were run to find it; ``folder`` where everything is.
    """

    plan: PatternPlan
    settings: SearchSettings
    folder: RunFolder
    choice: Choice
    prompts: tuple[int, ...]
    probes: tuple[Probe, ...] = ()
    limit: str | None = None

    @property
    def modes(self) -> dict[str, int]:
        """How many (bucket, layer, head) have each mode, the most frequent first."""
        heads = (h for bucket in self.plan.table.buckets for layer in bucket for h in layer)
        return dict(Counter(MODES[type(head.pattern)] for head in heads).most_common())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; an infinite PSNR, of videos equal to the dense ones, is null."""
        choice, evidence = self.choice, self.plan.evidence
        return {
            "schema": SCHEMA,
            "model": evidence.model,
            "budget": self.settings.budget.to_dict(),
            "met": self.limit is None,
            "limit": self.limit,
            "density": choice.density,
            "cost": choice.cost,
            "cost_source": evidence.cost_source,
            "error": choice.error,
            "lambda": choice.price,
            "epsilon": choice.epsilon,
            "run_density": evidence.density,
            "attention_share": evidence.attention_share,
            "psnr": evidence.psnr,
            "speedup": evidence.speedup,
            "prompts": list(self.prompts),
            "prompts_asked": len(self.settings.prompts),
            "modes": self.modes,
            "probes": [
                {"density": p.density, "figure": p.figure if isfinite(p.figure) else None}
                for p in self.probes
            ],
        }

    def write(self, found: Candidates, record: TrialRecord) -> None:
        """The plan, search.json and trials.safetensors into the folder, each whole or not at all."""
        self.plan.save_pretrained(self.folder.path)
        self.folder.write_tensors(TRIALS, _trial_tensors(found, record))
        self.folder.write_json("search.json", self.to_dict())


def _trial_tensors(found: Candidates, record: TrialRecord) -> Mapping[str, Tensor]:
    """Mean error, cost and density of every candidate: ``[s, c, h]`` by layer."""
    chooser = found.chooser(record)
    tensors = {}
    for number, layer in enumerate(chooser.layers):
        tensors[f"{number}.errors"] = layer.errors
        tensors[f"{number}.costs"] = layer.costs
        tensors[f"{number}.densities"] = layer.densities
    return tensors
