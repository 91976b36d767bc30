"""Passes: what a search runs on every prompt, in order, up to the errors of all candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.costs import measure_costs, read_costs, shapes_of
from sparsediff.pattern_search.options import SearchOptions
from sparsediff.pattern_search.probes import PROMPTS
from sparsediff.pattern_search.profiles import STAGE as PROFILE
from sparsediff.pattern_search.profiles import Profiles, profile
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.pattern_search.trials import PILOT, Candidates, total_record, trial
from sparsediff.pattern_search.trials import STAGE as TRIAL
from sparsediff.pattern_search.units import Statistics
from sparsediff.pattern_search.work import Work
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.search.offline.trial_record import TrialRecord
from sparsediff.timed_run import Runner


def planned_units(prompts: int) -> dict[str, int]:
    """How many units every pass has."""
    return {PROFILE: prompts, PILOT: 1, TRIAL: prompts}


class Passes:
    """The passes of one search with a loaded pipeline on a device.

    Each raises SparseError when the time is up before it is done; what is finished stays saved.
    """

    def __init__(
        self,
        *,
        settings: SearchSettings,
        folder: RunFolder,
        work: Work,
        pipe: Any,
        fingerprint: Fingerprint,
        device: str,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.work = work
        self.pipe = pipe
        self.shapes = shapes_of(fingerprint)
        self.device = device
        self.prompts = range(len(settings.prompts))

    def profiles(self) -> Profiles:
        """Every prompt once, dense: where its attention lies."""

        def compute(prompt: int) -> Statistics:
            return profile(
                self.runner(prompt),
                self.settings.options,
                layers=len(self.shapes),
                keep_frames=prompt < PROMPTS,
                backend=self.settings.backend,
            )

        done = self.work.run(PROFILE, self.prompts, compute)
        if len(done) < len(self.prompts):
            raise self._out_of_time()
        return Profiles.of(self.work.units, done)

    def candidates(self, profiles: Profiles) -> Candidates:
        """What is tried for every head, and what it costs here."""
        options = self.settings.options
        steps = options.steps.steps(profiles.steps)
        if self.work.processes.is_main:
            measure_costs(
                self.folder,
                self.shapes,
                settings=self.settings,
                device=self.device,
                grid=profiles.grid,
                searches_per_call=(len(steps) + 1) / max(1, sum(steps)),
            )
        self.work.processes.wait()
        return Candidates.of(profiles, self.shapes, read_costs(self.folder), options)

    def price(self, found: Candidates) -> float:
        """The lambda that gives the density of the trials, from the errors on one dense trajectory.

        One step of every bucket is enough for that.
        """
        options = replace(self.settings.options, per_bucket=1)
        if not self._tried(PILOT, [0], found, options, price=0.0):
            raise self._out_of_time()
        chooser = found.chooser(total_record(self.work.units, PILOT, [0]))
        return chooser.at_density(self.settings.options.density).price

    def trials(self, found: Candidates, price: float) -> tuple[TrialRecord, list[int]]:
        """Every candidate on every prompt's sparse trajectory; the prompts that were in time."""
        done = self._tried(TRIAL, self.prompts, found, self.settings.options, price=price)
        if not done:
            raise self._out_of_time()
        return total_record(self.work.units, TRIAL, done), done

    def runner(self, prompt: int) -> Runner:
        """Generates one prompt from its own noise."""
        settings = self.settings
        runner = Runner(
            self.pipe,
            GenerationRecipe(call=settings.call, autocast=settings.autocast),
            prompt=settings.prompts[prompt],
            seed=settings.seed + prompt,
            device=self.device,
            bars=self.work.watch.bars,
            watcher=self.work.watch.step,
        )
        runner.label = f"prompt {prompt + 1}"
        return runner

    def _tried(
        self,
        stage: str,
        prompts: Sequence[int],
        found: Candidates,
        options: SearchOptions,
        *,
        price: float,
    ) -> list[int]:
        def compute(prompt: int) -> Statistics:
            backend = self.settings.backend
            return trial(self.runner(prompt), options, found, price=price, backend=backend)

        return self.work.run(stage, prompts, compute)

    def _out_of_time(self) -> SparseError:
        done, total = self.folder.saved()
        return SparseError(
            f"The time was up before a plan could be made. Saved {done} of {total} units; resume: "
            f"sparsediff search --resume {self.folder.path}"
        )
