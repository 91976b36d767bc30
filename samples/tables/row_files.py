"""The files of one row of a table: what was generated, and the facts of the runs that did it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class RowFiles:
    """Samples uint8 `[n, ...]` and facts of the runs that made them; always whole, killed or not.

    ``told`` are the facts of this run. Of those that an earlier one noted, the ``kept`` stay and the
    ``same`` must be as they are told now: ValueError names the first that is not. ``tensor`` is the
    samples' name in their file.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        told: Mapping[str, Any],
        *,
        tensor: str = "samples",
        kept: Collection[str] = (),
        same: Collection[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.tensor = name, tensor
        self.samples, self.facts = folder / f"{name}.safetensors", folder / f"{name}.json"
        begun = self.samples.exists() and self.facts.exists()
        empty = torch.empty(0, dtype=torch.uint8)
        self.done = load_file(self.samples)[tensor] if begun else empty
        known = json.loads(self.facts.read_text()) if self.facts.exists() else {}
        self.told = {name: known[name] for name in kept if name in known}
        self.told |= {**told, "runs": known.get("runs", {})}
        if known:
            self._check(known, same)

    def _check(self, known: Mapping[str, Any], same: Collection[str]) -> None:
        now = json.loads(json.dumps(self.told))
        for name in same:
            if now[name] != known.get(name):
                raise ValueError(
                    f"Found {self.facts}, begun with {name} {known.get(name)}; now it is {now[name]}. "
                    f"Go on as it was begun, choose another --out, or remove the row's files."
                )

    def note(self, **facts: Any) -> None:
        """Write down facts."""
        self.told |= facts
        replaced(self.facts, lambda path: path.write_text(json.dumps(self.told, indent=1) + "\n"))

    def add(self, samples: Tensor, run: Mapping[str, Any]) -> None:
        """Append the samples of one run, and its facts under the number of its first sample."""
        runs = {**self.told["runs"], str(len(self.done)): dict(run)}
        self.done = (torch.cat([self.done, samples]) if len(self.done) else samples).contiguous()
        self.note(runs=runs)
        replaced(self.samples, lambda path: save_file({self.tensor: self.done}, path))


def replaced(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside `path`, which it then replaces at once."""
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.replace(path)
