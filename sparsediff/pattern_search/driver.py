"""The search: dense profiles of all prompts, candidates fitted to them, trials, and the choice.

Sparse-vDiT (arXiv 2506.03065 §2.2) over many prompts: what a prompt adds is a sum, and sums are made
in the order of the prompts, so neither an interruption nor the number of processes changes the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from sparsediff.environment import device_name
from sparsediff.loading import load_pipeline
from sparsediff.model_files import ModelFiles
from sparsediff.models import denoisers
from sparsediff.pattern_search.budget_search import BudgetSearch
from sparsediff.pattern_search.costs import read_costs
from sparsediff.pattern_search.evidence import evidence_of
from sparsediff.pattern_search.passes import Passes, planned_units
from sparsediff.pattern_search.processes import Processes
from sparsediff.pattern_search.request import SearchRequest, different
from sparsediff.pattern_search.result import SearchResult
from sparsediff.pattern_search.settings import SearchSettings
from sparsediff.pattern_search.watch import Watch
from sparsediff.pattern_search.work import Work
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.plans.pattern_plan import PatternPlan


def search(
    request: SearchRequest, watch: Watch | None = None, *, pipe: Any | None = None
) -> SearchResult:
    """Search a plan and write it into the request's folder; every process of a launch calls this.

    `watch` follows the search and may end it. `pipe` is the request's pipeline where it is loaded
    already, on its device and in its dtype; it is left as it was. Raises SearchStopped when `watch`
    stops it, and SparseError when the search cannot go on, or the time was up before a plan could be
    made; finished units stay.
    """
    watch = watch or Watch()
    watch.begin()
    processes = Processes(request.device)
    lock = request.folder.locked() if processes.is_main else nullcontext()
    with lock:
        if processes.is_main and not request.resumed:
            request.folder.check_new()  # another search may have come and gone since the request
        device = processes.device(request.device)
        if pipe is None:
            files = ModelFiles(name=request.settings.model)
            pipe = load_pipeline(files, dtype=request.settings.dtype, device=device)
        with _stoppable(pipe, watch):
            return _searched(request, pipe, processes, watch, device)


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


def _searched(
    request: SearchRequest, pipe: Any, processes: Processes, watch: Watch, device: str
) -> SearchResult:
    fingerprint = Fingerprint.of(pipe)
    settings = _settings(request, fingerprint, processes)
    folder = request.folder
    work = Work(folder.units, processes, watch, planned_units(len(settings.prompts)))
    passes = Passes(
        settings=settings,
        folder=folder,
        work=work,
        pipe=pipe,
        fingerprint=fingerprint,
        device=device,
    )
    profiles = passes.profiles()
    found = passes.candidates(profiles)
    record, done = passes.trials(found, passes.price(found))
    outcome = BudgetSearch(
        work=work,
        settings=settings,
        chooser=found.chooser(record),
        grid=profiles.grid,
        prompts=done,
        runner_for=passes.runner,
    ).outcome()
    evidence = evidence_of(
        settings,
        outcome,
        prompts=done,
        dense_share=1 - sum(found.steps) / profiles.steps,
        cost=read_costs(folder)[passes.shapes[0]],
        device=device_name(device),
    )
    result = SearchResult(
        plan=PatternPlan(
            table=outcome.table,
            fingerprint=replace(fingerprint, steps=profiles.steps),
            evidence=evidence,
        ),
        settings=settings,
        folder=folder,
        choice=outcome.choice,
        prompts=tuple(done),
        probes=outcome.probes,
        limit=outcome.limit,
    )
    if processes.is_main:
        result.write(found, record)
    return result


def _settings(
    request: SearchRequest, fingerprint: Fingerprint, processes: Processes
) -> SearchSettings:
    """The settings with the hash of the weights; kept in the folder from now on."""
    settings = request.settings.with_weights(fingerprint.weights or "")
    if request.resumed:
        differences = request.folder.read_settings().differences(settings)
        if differences:
            raise different(request.folder, differences)
    processes.wait()
    if processes.is_main:
        request.folder.write_settings(settings)
    processes.wait()
    return settings
