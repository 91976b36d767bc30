"""docs/models.md: what the tests of every family found, beside what the facts say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparsediff.cli.models import TEXT
from sparsediff.models import FACTS, REFUSED, denoisers

HEAD = """# Models

Every row is a real diffusers pipeline at toy size with random weights, run to its end on a CPU.
Written by `make models`, which runs the tests of the columns; with {versions}.

* *= dense*: with density 1.0 the latents are those of dense attention, by three methods
* *sparse*: at density 0.3 every call after the dense steps ran sparse, and was counted
* *undo*: after disabling, model and results are bit for bit as before
* *batch*: a row of a batch of two equals the same prompt alone; "none": the pipeline takes no batch
* *guidance*: the branches of classifier-free guidance keep patterns of their own, in the style named
* *compiled*: `torch.compile` of the blocks makes as many graphs as without sparse attention

| family | pipeline | model class | text | = dense | sparse | undo | batch | guidance | compiled |
|---|---|---|---|---|---|---|---|---|---|
"""
TESTS = (
    "test_density_one_equals_dense",
    "test_sparse_runs_and_is_counted",
    "test_undo_is_bit_exact",
    "test_batch_rows_do_not_mix",
    "test_guidance_branches_keep_apart",
    "test_compiling_adds_no_graph",
)


class Outcomes:
    """How the tests of `TestFamily` ended, by family and test."""

    def __init__(self) -> None:
        self.by_family: dict[str, dict[str, set[str]]] = {}

    def note(self, nodeid: str, outcome: str) -> None:
        """One test's end: passed, failed or skipped."""
        name, _, parameters = nodeid.rpartition("::")[2].rstrip("]").partition("[")
        family = parameters.split("-")[0]
        self.by_family.setdefault(family, {}).setdefault(name, set()).add(outcome)

    def cell(self, family: str, test: str) -> str:
        """What the table says of a test."""
        found = self.by_family.get(family, {}).get(test, set())
        words = {("passed",): "yes", ("skipped",): "none", (): "not run"}
        return words.get(tuple(sorted(found)), "**no**")


def write(path: Path, outcomes: Outcomes) -> None:
    """The document, from the outcomes of a whole run of `TestFamily`."""
    import diffusers
    import torch

    versions = f"diffusers {diffusers.__version__} and torch {torch.__version__.partition('+')[0]}"
    path.write_text(HEAD.format(versions=versions) + _rows(outcomes) + _notes(), encoding="utf-8")


def _rows(outcomes: Outcomes) -> str:
    from tiny_pipelines import FAMILIES

    lines = []
    for family in FAMILIES.values():
        pipe = family.build()
        models = {type(model).__name__ for model in denoisers(pipe).values()}
        cells: Mapping[str, str] = {test: outcomes.cell(family.name, test) for test in TESTS}
        shown = dict(cells)
        shown[TESTS[4]] += f", {family.guidance}" if family.guidance != "none" else ", no guidance"
        shown[TESTS[5]] += " (several graphs)" if family.graphs else ""
        text = {TEXT[FACTS[model].text] for model in models}
        classes = ", ".join(f"`{model}`" for model in sorted(models))
        columns = [family.name, type(pipe).__name__, classes, ", ".join(text), *shown.values()]
        lines.append(f"| {' | '.join(columns)} |\n")
    return "".join(lines)


def _notes() -> str:
    dense = [f"* `{f.model}`: {f.dense}\n" for f in FACTS.values() if f.dense]
    graphs = [f"* `{f.model}`: {f.graphs}\n" for f in FACTS.values() if f.graphs]
    refused = [f"* `{model}`: {reason}\n" for model, reason in REFUSED.items()]
    parts = (("What stays dense", dense), ("Why several graphs", graphs), ("Refused", refused))
    return "".join(f"\n## {title}\n\n{''.join(lines)}" for title, lines in parts if lines)
