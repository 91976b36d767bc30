"""SearchChoices: what a person asks of a search, checked, beside the settings of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.request import SearchRequest
from sparsediff.ui.comparison import Comparison
from sparsediff.ui.settings import LONGEST_PROMPT, Settings, check_characters

MOST_PROMPTS = 16  # of one person, on a machine that others may be waiting for
# By the words of the page: the kind of a budget, and what it is unless somebody chooses.
BUDGETS = {
    "share of blocks": ("density", 0.3),
    "closeness to dense, dB": ("psnr", 30.0),
    "speed-up": ("speedup", 1.2),
}
# Options of the search by the words of the page.
EXTRAS = {
    "heads searched while generating": "online",
    "leaving out a few heads": "allow_skip",
    "means for what is left out": "compensate",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchChoices:
    """``prompts`` one a line, none for that of the comparison; ``budget`` and ``extras`` by BUDGETS
    and EXTRAS; ``value`` of the budget; ``cost`` "measured" or "flops".

    Raises SparseError for a value that no search can use.
    """

    prompts: str = ""
    budget: str = "share of blocks"
    value: float = 0.3
    extras: tuple[str, ...] = ()
    cost: str = "measured"

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            raise SparseError(f"budget {self.budget!r}: needs one of {', '.join(BUDGETS)}.")
        Budget(kind=BUDGETS[self.budget][0], value=self.value)
        unknown = [name for name in self.extras if name not in EXTRAS]
        if unknown:
            raise SparseError(f"{unknown[0]!r} is unknown; needs some of {', '.join(EXTRAS)}.")
        check_characters("prompts", self.prompts)
        lines = self.lines
        if len(lines) > MOST_PROMPTS or any(len(line) > LONGEST_PROMPT for line in lines):
            raise SparseError(
                f"{len(lines)} prompts to search on: needs at most {MOST_PROMPTS}, one a line, each "
                f"of at most {LONGEST_PROMPT} characters. `sparsediff search` takes more."
            )

    @property
    def lines(self) -> list[str]:
        """The prompts that were given, without empty lines."""
        return [line.strip() for line in self.prompts.splitlines() if line.strip()]

    @property
    def name(self) -> str:
        """What a plan for these choices is called."""
        return f"plan {BUDGETS[self.budget][0]} {self.value:g}"

    def request(self, comparison: Comparison, settings: Settings, folder: Path) -> SearchRequest:
        """The search that `sparsediff search` makes of the same choices, into a new `folder`.

        Raises SparseError for anything that cannot work; nothing is written or loaded.
        """
        kind, _ = BUDGETS[self.budget]
        made = SearchRequest.new(
            comparison.model,
            self.lines or [settings.prompt],
            Budget(kind=kind, value=self.value),
            folder,
            seed=settings.seed,
            device=comparison.device,
            dtype=comparison.dtype,
            options={"cost": self.cost} | {EXTRAS[name]: True for name in self.extras},
        )
        call = {**made.settings.call, **settings.call}
        return replace(made, settings=replace(made.settings, call=call))
