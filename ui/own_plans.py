"""OwnPlans: the plans that a page searched or was given, which no other page sees."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from sparsediff.plans import PatternPlan

_MOST_PLANS, _MOST_PAGES = 20, 100  # a plan of a large model takes a few megabytes
_LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedPlan:
    """A plan, the ``name`` under which a page shows it, and a sentence on where it is from."""

    name: str
    plan: PatternPlan
    origin: str = ""


class OwnPlans:
    """Plans by page and name; of very many the oldest go."""

    def __init__(self) -> None:
        self._by_page: OrderedDict[str, OrderedDict[str, PatternPlan]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, page: str) -> dict[str, PatternPlan]:
        """The plans of a page, the oldest first."""
        with self._lock:
            return dict(self._by_page.get(page, {}))

    def add(self, page: str, name: str, plan: PatternPlan, *, taken: Collection[str]) -> str:
        """Keep a plan under `name`, or one like it that is not `taken`, and return that.

        A plan that the page has already keeps its name.
        """
        with self._lock:
            plans = self._by_page.setdefault(page, OrderedDict())
            self._by_page.move_to_end(page)
            for known, kept in plans.items():
                if kept == plan:
                    return known
            found = _free(_plain(name), {*plans, *taken})
            plans[found] = plan
            while len(plans) > _MOST_PLANS:
                plans.popitem(last=False)
            while len(self._by_page) > _MOST_PAGES:
                self._by_page.popitem(last=False)
        return found

    def forget(self, page: str) -> None:
        """Drop the plans of a page that was closed."""
        with self._lock:
            self._by_page.pop(page, None)


def _plain(name: str) -> str:
    """A name of a few plain characters: it comes from a file, and goes into addresses and files."""
    words = re.sub(r"[^\w .()-]+", " ", name).strip(" .")
    return words[:_LONGEST_NAME].strip() or "plan"


def _free(name: str, taken: Collection[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name} ({number})"
    return found
