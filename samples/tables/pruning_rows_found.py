"""The rows of the pruning table that are there, checked to belong together, and what is missing."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_masks import Row  # noqa: E402
from pruning_models import CRITERIA, RATIOS, SampleModel  # noqa: E402
from pruning_rows import FOLDER, SCHEMA, WHOLE  # noqa: E402
from pruning_samples import answers  # noqa: E402

Facts = Mapping[str, Any]
Key = tuple[str, float, int]  # criterion, ratio, seed


def expected(sample: SampleModel, criteria: Sequence[str] | None = None) -> list[Key]:
    """The rows that the table asks for: those of the whole model, then of its criteria."""
    seeds = range(sample.seeds)
    rows = product(sample.criteria if criteria is None else criteria, RATIOS, seeds)
    return [*((WHOLE, 0.0, seed) for seed in seeds), *rows]


def rows_found(sample: SampleModel, folder: Path) -> dict[Key, Facts]:
    """Facts of the rows of all criteria that are complete; ``cases``: their first samples in order,
    with the share of ``answers`` that are right.

    Raises ValueError for rows of different weights, calls or settings, which cannot be compared.
    """
    found: dict[Key, Facts] = {}
    for key in expected(sample, CRITERIA):
        path = folder / f"{_row(sample, key).name}.json"
        facts = json.loads(path.read_text()) if path.exists() else {}
        if facts and facts.get("schema") != SCHEMA:
            raise ValueError(f"Found schema {facts.get('schema')!r} in {path}; needed {SCHEMA!r}.")
        runs = sorted(facts.get("runs", {}).items(), key=lambda item: int(item[0]))
        cases = [case for _, run in runs for case in run["cases"]]
        if "loss" in facts and len(cases) >= sample.samples:
            some = cases[: sample.samples]
            told = [case | {"answers": answers(sample, case)} for case in some]
            found[key] = {**facts, "cases": told}
    _check(sample, found)
    return found


def missing(sample: SampleModel, found: Mapping[Key, Facts]) -> list[Key]:
    """The rows that are asked for and are not there, or not whole."""
    return [key for key in expected(sample) if key not in found]


def commands_of(sample: SampleModel, keys: list[Key], folder: Path) -> list[str]:
    """The commands that make rows; EcoDiff's ratios of a seed share a training, so a command."""
    groups: dict[tuple[str, int], list[str]] = {}
    for criterion, ratio, seed in keys:
        groups.setdefault((criterion, seed), []).append(f"{ratio:g}")
    out = [] if folder == FOLDER else ["--out", str(folder)]
    return [
        shlex.join(
            [
                *("python", "samples/tables/pruning_rows.py", sample.name, criterion),
                *(",".join(ratios), str(seed), *out),
            ]
        )
        for (criterion, seed), ratios in groups.items()
    ]


def _row(sample: SampleModel, key: Key) -> Row:
    criterion, ratio, seed = key
    return Row(model=sample, criterion=criterion, ratio=ratio, seed=seed)


def _check(sample: SampleModel, found: Mapping[Key, Facts]) -> None:
    first: dict[tuple[str, str], tuple[Key, Any]] = {}
    for key, facts in found.items():
        settings = {name: value for name, value in facts["settings"].items() if name != "seed"}
        clean = facts["loss"]["samples"], facts["loss"]["times"]
        for what, of, value in (
            ("weights", "all", facts["weights"]),
            ("call", "all", facts["call"]),
            ("clean samples", "all", clean),
            ("settings", key[0], settings),
        ):
            other, known = first.setdefault((what, of), (key, value))
            if value != known:
                names = f"{_row(sample, other).name} and {_row(sample, key).name}"
                raise ValueError(
                    f"Found {names} of different {what}: {known} and {value}. They cannot be in one "
                    f"table; remove the files of one and make it again."
                )
