"""The search: dense profiles of all prompts, candidates fitted to them, trials, and the choice.

Sparse-vDiT (arXiv 2506.03065 §2.2) over many prompts: what a prompt adds is a sum, and sums are made
in the order of the prompts, so neither an interruption nor the number of processes changes the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sparsediff.environment import device_name
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.models import denoisers
from sparsediff.pattern_search.budget_search import BudgetSearch
from sparsediff.pattern_search.costs import measure_costs, read_costs, shapes_of
from sparsediff.pattern_search.evidence import evidence_of
from sparsediff.pattern_search.probes import PROMPTS
from sparsediff.pattern_search.processes import Processes
from sparsediff.pattern_search.profiles import STAGE as PROFILE
from sparsediff.pattern_search.profiles import Profiles, profile
from sparsediff.pattern_search.request import SearchRequest, different
from sparsediff.pattern_search.result import SearchResult
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.pattern_search.trials import PILOT, Candidates, total_record, trial
from sparsediff.pattern_search.trials import STAGE as TRIAL
from sparsediff.pattern_search.units import Statistics
from sparsediff.pattern_search.watch import Watch
from sparsediff.pattern_search.work import Work
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.plans.pattern_plan import PatternPlan
from sparsediff.search.trial_record import TrialRecord
from sparsediff.timed_run import Runner


def search(request: SearchRequest, watch: Watch | None = None) -> SearchResult:
    """Search a plan and write it into the request's folder; every process of a launch calls this.

    `watch` follows the search and may end it. Raises SearchStopped when it does, and SparseError when
    the search cannot go on, or the time was up before a plan could be made; finished units stay.
    """
    watch = watch or Watch()
    watch.begin()
    processes = Processes(request.device)
    lock = request.folder.locked() if processes.is_main else nullcontext()
    try:
        with lock:
            device = processes.device(request.device)
            pipe = load_pipeline(
                ModelFiles(name=request.settings.model), dtype=request.settings.dtype, device=device
            )
            with _stoppable(pipe, watch):
                return _Search(request, pipe, processes, watch, device).run()
    finally:
        processes.close()


@contextmanager
def _stoppable(pipe: Any, watch: Watch) -> Iterator[None]:
    """Ask before every forward whether to stop: a single prompt may take minutes."""
    hooks = [
        model.register_forward_pre_hook(lambda *_: watch.check())
        for model in denoisers(pipe).values()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Search:
    """One search at work in this process."""

    def __init__(
        self, request: SearchRequest, pipe: Any, processes: Processes, watch: Watch, device: str
    ) -> None:
        self.request = request
        self.folder = request.folder
        self.pipe = pipe
        self.processes = processes
        self.watch = watch
        self.device = device
        self.fingerprint = Fingerprint.of(pipe)
        self.shapes = shapes_of(self.fingerprint)
        self.settings = self._settings()
        self.options = self.settings.options
        count = len(self.settings.prompts)
        self.prompts = range(count)
        self.work = Work(
            self.folder.units, processes, watch, {PROFILE: count, PILOT: 1, TRIAL: count}
        )

    def run(self) -> SearchResult:
        """All passes, and the plan."""
        profiles = self._profiles()
        found = self._candidates(profiles)
        price = self._price(found)
        done = self.work.run(
            TRIAL,
            self.prompts,
            lambda prompt: trial(
                self._runner(prompt),
                self.options,
                found,
                price=price,
                backend=self.settings.backend,
            ),
        )
        if not done:
            raise self._out_of_time()
        record = total_record(self.work.units, TRIAL, done)
        return self._result(profiles, found, record, done)

    def _settings(self) -> SearchSettings:
        """The settings with the hash of the weights; kept in the folder from now on."""
        settings = self.request.settings.with_weights(self.fingerprint.weights or "")
        if self.request.resumed:
            differences = self.folder.read_settings().differences(settings)
            if differences:
                raise different(self.folder, differences)
        self.processes.wait()
        if self.processes.is_main:
            self.folder.write_settings(settings)
        self.processes.wait()
        return settings

    def _profiles(self) -> Profiles:
        done = self.work.run(
            PROFILE,
            self.prompts,
            lambda prompt: profile(
                self._runner(prompt),
                self.options,
                layers=len(self.shapes),
                keep_frames=prompt < PROMPTS,
            ),
        )
        if len(done) < len(self.prompts):
            raise self._out_of_time()
        return Profiles.of(self.work.units, done)

    def _candidates(self, profiles: Profiles) -> Candidates:
        steps = self.options.steps.steps(profiles.steps)
        if self.processes.is_main:
            measure_costs(
                self.folder,
                self.shapes,
                settings=self.settings,
                device=self.device,
                grid=profiles.grid,
                searches_per_call=(len(steps) + 1) / max(1, sum(steps)),
            )
        self.processes.wait()
        return Candidates.of(profiles, self.shapes, read_costs(self.folder), self.options)

    def _price(self, found: Candidates) -> float:
        """The lambda that gives the density of the trials, from the errors on one dense trajectory."""

        def pilot(prompt: int) -> Statistics:
            backend = self.settings.backend
            return trial(self._runner(prompt), self.options, found, price=0.0, backend=backend)

        if not self.work.run(PILOT, [0], pilot):
            raise self._out_of_time()
        chooser = found.chooser(total_record(self.work.units, PILOT, [0]))
        return chooser.at_density(self.options.density).price

    def _result(
        self, profiles: Profiles, found: Candidates, record: TrialRecord, done: list[int]
    ) -> SearchResult:
        budget = BudgetSearch(
            work=self.work,
            settings=self.settings,
            chooser=found.chooser(record),
            grid=profiles.grid,
            prompts=done,
            runner_for=self._runner,
        )
        outcome = budget.outcome()
        evidence = evidence_of(
            self.settings,
            outcome,
            prompts=done,
            dense_share=1 - sum(found.steps) / profiles.steps,
            cost=read_costs(self.folder)[self.shapes[0]],
            device=device_name(self.device),
        )
        plan = PatternPlan(
            table=outcome.table,
            fingerprint=Fingerprint.of(self.pipe, steps=profiles.steps),
            evidence=evidence,
        )
        result = SearchResult(
            plan=plan,
            settings=self.settings,
            folder=self.folder,
            choice=outcome.choice,
            prompts=tuple(done),
            probes=outcome.probes,
            limit=outcome.limit,
        )
        if self.processes.is_main:
            result.write(found, record)
        return result

    def _runner(self, prompt: int) -> Runner:
        settings = self.settings
        return Runner(
            self.pipe,
            self.request.recipe,
            prompt=settings.prompts[prompt],
            seed=settings.seed + prompt,
            device=self.device,
            bars=self.watch.bars,
        )

    def _out_of_time(self) -> SparseError:
        done, total = self.folder.saved()
        return SparseError(
            f"The time was up before a plan could be made. Saved {done} of {total} units; resume: "
            f"sparsediff search --resume {self.folder.path}"
        )
