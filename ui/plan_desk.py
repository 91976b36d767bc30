"""PlanDesk: searches and uploads that pages ask for, done, and said in the page's words."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans import Fingerprint, PatternPlan
from sparsediff.ui.desk import Desk, Shown, outcome
from sparsediff.ui.figures import message, status
from sparsediff.ui.job import Job
from sparsediff.ui.news import Teller
from sparsediff.ui.own_plans import NamedPlan
from sparsediff.ui.plan_upload import check_plan, uploaded
from sparsediff.ui.search_choices import SearchChoices
from sparsediff.ui.searching import searched
from sparsediff.ui.settings import Settings

_CHOSEN = "is chosen as the method: press Compare."
_OVERTAKEN = "Ended, because this page began another run."


class PlanDesk:
    """Takes orders for plans beside those of `desk`, in the same line and with the same Stop."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.comparison = desk.comparison
        self._fingerprint: Fingerprint | None = None

    def search(
        self, page: str, values: Mapping[str, Any], choices: Mapping[str, Any]
    ) -> Iterator[Shown]:
        """Search a plan at the size, steps and seed in `values`; what goes wrong is said."""
        try:
            settings, wanted = Settings(**values), SearchChoices(**choices)
            wanted.request(
                self.comparison, settings, self._new_folder()
            )  # said before anybody waits
        except SparseError as error:
            yield _refused(error)
            return
        yield from self._told(page, settings, wanted)

    def _told(self, page: str, settings: Settings, wanted: SearchChoices) -> Iterator[Shown]:
        last = None
        for last in self.desk.follow(
            page, lambda tell: self._searched(page, settings, wanted, tell)
        ):
            yield last
        if last is None or last.running:
            yield Shown(status=message(_OVERTAKEN), running=self.desk.jobs.busy(page))

    def _searched(
        self, page: str, settings: Settings, wanted: SearchChoices, tell: Teller
    ) -> Shown:
        found = searched(self.comparison, settings, wanted, self._new_folder(), tell)
        words = f"Searched on {_counted(len(found.prompts))} at seed {settings.seed}."
        if found.limit:
            words += f" Not quite what was asked: {found.limit}."
        return self._kept(page, wanted.name, found.plan, words)

    def upload(
        self, page: str, values: Mapping[str, Any], sent: Mapping[str, Any]
    ) -> Iterator[Shown]:
        """Take the plan that the browser `sent`: "name" of its file, "content" in base64, "size".

        What is wrong with it is said.
        """
        try:
            settings = Settings(**values)
            called, plan = uploaded(sent.get("name"), sent.get("content"), sent.get("size"))
        except SparseError as error:
            yield _refused(error)
            return

        def checked(tell: Teller) -> Shown:
            words = check_plan(plan, self._model(tell), self.comparison.model, settings)
            return self._kept(page, called, plan, f"Uploaded. {words}")

        job: Job[Shown] = Job(checked)  # beside what the page is running, which goes on
        for news in job.news():
            yield Shown(status=status(news))
        yield outcome(job)

    def file(self, named: NamedPlan) -> Path:
        """The plan as a JSON file to be downloaded, in a folder that nobody can guess."""
        folder = self._new_folder()
        folder.mkdir(parents=True)
        path = folder / f"{named.name}.json"
        path.write_bytes(named.plan.to_json())
        return path

    def methods(self, page: str) -> list[str]:
        """What a page can choose from."""
        return [*self.comparison.methods, *self.desk.plans.of(page)]

    def _kept(self, page: str, name: str, plan: PatternPlan, words: str) -> Shown:
        known = self.desk.plans.add(page, name, plan, taken=self.comparison.methods)
        said = message(f"{known} {_CHOSEN} {words}", state="done")
        return Shown(
            status=said, plan=NamedPlan(name=known, plan=plan, origin=words), running=False
        )

    def _model(self, tell: Teller) -> Fingerprint:
        """The fingerprint of the model, which is loaded for it if it is not yet."""
        if self._fingerprint is None:
            with self.comparison.turn(tell):
                self._fingerprint = Fingerprint.of(self.comparison.loaded(tell).pipe)
        return self._fingerprint

    def _new_folder(self) -> Path:
        return self.desk.folder / f"plan-{secrets.token_hex(8)}"


def _refused(error: SparseError) -> Shown:
    return Shown(status=message(str(error), state="error"), running=False)


def _counted(prompts: int) -> str:
    return "1 prompt" if prompts == 1 else f"{prompts} prompts"
