"""Masks of the pruning table, made by what `sparsediff prune` is made of, and the models they leave."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_models import CHAINED, SampleModel  # noqa: E402

from sparsediff.distill.training.training_start import is_started  # noqa: E402
from sparsediff.loading import hide_library_bars, load_pipeline  # noqa: E402
from sparsediff.model_files import ModelFiles  # noqa: E402
from sparsediff.plans.weights_digest import weights_digest  # noqa: E402
from sparsediff.prune.masks import Masks  # noqa: E402
from sparsediff.prune.pipeline_model import prunable_model  # noqa: E402
from sparsediff.prune.proof_batch import proof_batch  # noqa: E402
from sparsediff.prune.pruning import PruneSettings, prune  # noqa: E402
from sparsediff.prune.removal import remove  # noqa: E402
from sparsediff.prune.structures import Structure, structures_of  # noqa: E402
from sparsediff.prune.subject import Subject  # noqa: E402


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """One row of the table: a criterion's masks, or with "whole" the model as it is."""

    model: SampleModel
    criterion: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its files, without the ending."""
        return f"{self.model.name}-{self.criterion}-{self.ratio:g}-{self.seed}"

    def masks_file(self, folder: Path) -> Path:
        """Where its masks are."""
        return folder / f"{self.name}.masks.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A sample model in float32 on the CPU: its pipeline, the model to prune, its first call."""

    pipe: Any
    component: str
    model: nn.Module
    structures: tuple[Structure, ...]
    batch: dict[str, Any]
    weights: str | None

    @classmethod
    def of(cls, sample: SampleModel) -> Self:
        """Load it."""
        hide_library_bars()
        pipe = load_pipeline(ModelFiles(name=str(sample.folder)), dtype="float32", device="cpu")
        pipe.set_progress_bar_config(disable=True)
        component, model = prunable_model(pipe)
        return cls(
            pipe=pipe,
            component=component,
            model=model.eval(),
            structures=tuple(structures_of(model, ("heads", "ffn"))),
            batch=proof_batch(pipe, model, sample.requests(0)[0][0], sample.call()),
            weights=weights_digest([model]),
        )

    def cut(self, masks: Masks) -> nn.Module:
        """The model without what the masks give up, checked against the masked one."""
        return remove(self.model, masks, batch=self.batch)


def masks_of(row: Row, loaded: Loaded, folder: Path) -> Masks:
    """The masks of a row: those in `folder`, or made now and kept there.

    EcoDiff's training goes on where it was, and serves all ratios of its seed.
    """
    if row.criterion == "whole":
        return Masks(kept={})
    path = row.masks_file(folder)
    if not path.exists():
        settings = PruneSettings(
            criterion=row.model.criterion(row.criterion, row.seed), ratio=row.ratio
        )
        masks = prune(_subject(row, loaded, folder), settings, None).masks
        masks.save(path)
    return Masks.load(path)


def _subject(row: Row, loaded: Loaded, folder: Path) -> Subject:
    call = row.model.call()
    training = folder / "learning" / f"{row.model.name}-{row.seed}-{str(loaded.weights)[:8]}"
    if row.criterion in CHAINED:
        del call["num_inference_steps"]  # among its own settings
        call.update(row.model.chain)

    def tell(done: int, of: int) -> None:
        print(f"{row.name}: {done} of {of} rounds", flush=True)

    return Subject(
        model=loaded.model,
        structures=loaded.structures,
        pipe=loaded.pipe,
        prompts=row.model.calibration_of(row.criterion),
        call=call,
        seed=row.seed,
        folder=training,
        resume="latest" if is_started(training) else None,
        progress=tell,
    )
