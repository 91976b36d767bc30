"""Comparison: one model, loaded once, on which dense and sparse runs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sparsediff.compare import generate_with, run_dense
from sparsediff.environment import device_name
from sparsediff.generation import GenerationRecipe
from sparsediff.generation_request import GenerationRequest
from sparsediff.generation_result import GenerationResult
from sparsediff.kernels.errors import SparseError
from sparsediff.loaded_model import LoadedModel
from sparsediff.loading import resolve_device, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.plans import PatternPlan
from sparsediff.search import METHODS
from sparsediff.ui.dense_runs import DenseRuns
from sparsediff.ui.diary import Diary
from sparsediff.ui.line import Line
from sparsediff.ui.news import News, Teller
from sparsediff.ui.run_progress import RunProgress
from sparsediff.ui.settings import Settings

Plans = Mapping[str, PatternPlan]  # by the names that a page shows
NO_PLANS: Plans = {}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Compared:
    """A comparison: its settings, its figures, and whether the dense half is an earlier run's.

    ``log``: what was said on the way.
    """

    settings: Settings
    result: GenerationResult
    dense_reused: bool
    log: tuple[str, ...] = ()


class Comparison:
    """The engine behind the page; it needs no browser.

    `plans` by the names that the page shows. All work takes turns in ``line``. The model is loaded by
    the first run. Raises SparseError when the model cannot be used or `device` is not there.
    """

    def __init__(
        self,
        model: str,
        *,
        plans: Mapping[str, PatternPlan] | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.model = model
        self.plans: dict[str, PatternPlan] = dict(plans or {})
        files = ModelFiles(name=model)
        files.denoisers()
        self.recipe = GenerationRecipe.of(files)
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.recipe, self.device)
        self.line = Line()
        self.dense_runs = DenseRuns()
        self._loaded: LoadedModel | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """What can be chosen: every method of the registry, then the plans."""
        return (*METHODS, *self.plans)

    @property
    def device_words(self) -> str:
        """What the runs are made on, in words."""
        return f"{device_name(self.device)}, {self.dtype}"

    def request(self, settings: Settings, own: Plans = NO_PLANS) -> GenerationRequest:
        """The request that `sparsediff generate --compare` makes of the same settings.

        `own` are the plans of the page that asks. Raises SparseError for a method that is neither one
        of ``methods`` nor one of them.
        """
        plans = {**own, **self.plans}
        if settings.method not in (*METHODS, *plans):
            raise SparseError(
                f"There is no method or plan called {settings.method[:60]!r} here; choose one of "
                f"{', '.join([*METHODS, *plans])}. A plan belongs to the page that made it: search it "
                f"again, or upload the file that was downloaded there."
            )
        plan = plans.get(settings.method)
        options = {"density": settings.density, "warmup": settings.warmup}
        return GenerationRequest(
            model=self.model,
            prompt=settings.prompt,
            method=settings.method if plan is None else plan,
            options=options if plan is None else {},
            seed=settings.seed,
            call=settings.call,
            compare=True,
            device=self.device,
            dtype=self.dtype,
            gate=settings.gate,
        )

    def run(self, settings: Settings, tell: Teller, own: Plans = NO_PLANS) -> Compared:
        """Compare dense and sparse; `tell` hears of every step and may raise RunStopped.

        `own` as in `request`.
        A dense run of the same prompt, seed, size and steps is not made again. Whatever happens, the
        model is left dense. Raises SparseError as `sparsediff generate` does.
        """
        request = self.request(settings, own)
        with Diary(tell).kept() as diary, self.turn(diary.tell):
            model = self.loaded(diary.tell)
            known = self.dense_runs.get(settings.dense_key)
            progress = RunProgress(diary.tell, dense=known is None)
            runner = progress.runner = model.runner(request, watcher=progress)
            dense = known or run_dense(runner, request)
            self.dense_runs.put(settings.dense_key, dense)
            result = generate_with(model, runner, request, dense=dense)
        return Compared(
            settings=settings,
            result=result,
            dense_reused=known is not None,
            log=tuple(diary.lines),
        )

    def turn(self, tell: Teller) -> AbstractContextManager[None]:
        """Wait for the model, which is this run's inside the with-block; `tell` hears of the line."""
        return self.line.turn(lambda before: tell(News(phase="Starting", waiting=before)))

    def loaded(self, tell: Teller) -> LoadedModel:
        """The model, loaded if it is not yet; only who has the turn may ask."""
        if self._loaded is None:
            tell(News(phase="Loading the model"))
            first = GenerationRequest(
                model=self.model, prompt="", device=self.device, dtype=self.dtype
            )
            self._loaded = LoadedModel.of(first)
        return self._loaded
