"""A student as files: what diffusers loads by itself, and a card that says how to run it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsediff.distill.student.saved_method import SPARSE_ATTENTION, method_text
from sparsediff.distill.student.student_adapter import WEIGHTS, adapter_tensors, write_adapter
from sparsediff.distill.student.student_card import CARD, StudentCard
from sparsediff.distill.student.student_readme import student_readme
from sparsediff.distill.student.whole_folder import whole_folder
from sparsediff.kernels.errors import SparseError
from sparsediff.search import Method

README, SCHEDULER = "README.md", "scheduler"
# What an older student may have and a new one not.
_PARTS = (WEIGHTS, SPARSE_ATTENTION)
# What a folder may not have of somebody else; of a student that is no LoRA also its model.
FILES = (README, SCHEDULER, *_PARTS, "transformer", "unet")


def save_student(
    folder: str | os.PathLike[str],
    *,
    card: StudentCard,
    model: nn.Module,
    scheduler: Any,
    method: Method | None = None,
    adapter: str = "student",
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a student, all of it or nothing: a student that was there is replaced.

    `model` is the trained one, its wrappers taken off: of a LoRA student, which is one whose card has a
    rank, the peft adapter `adapter` is written, as ``pipe.load_lora_weights`` reads it; of others
    everything, as ``from_pretrained`` does. `weights` of a LoRA in place of the model's own, by peft's
    names without the adapter's: averaged ones, or gathered from several processes. `scheduler` is that
    of `student_scheduler`, `method` the sparse attention it was trained with.

    Other files of the folder stay. Raises SparseError when it cannot be written, with the old student
    still there, and when card, method and model contradict each other.
    """
    _check(card, method)
    target = Path(folder).expanduser()
    if (target / "model_index.json").exists():
        raise SparseError(
            f"{target} holds a whole pipeline, whose scheduler the student's would replace. Choose "
            f"another folder."
        )
    with whole_folder(target, last=CARD, old=_PARTS) as scratch:
        if card.rank is not None:
            tensors = adapter_tensors(model, adapter) if weights is None else weights
            write_adapter(scratch, card.component, tensors, _adapter_config(model, adapter, card))
        else:
            _write_model(scratch / card.component, model)
        scheduler.save_config(scratch / SCHEDULER)
        if method is not None:
            (scratch / SPARSE_ATTENTION).write_text(method_text(method), encoding="utf-8")
        readme = student_readme(card, type(scheduler).__name__)
        (scratch / README).write_text(readme, encoding="utf-8")
        (scratch / CARD).write_text(card.text(), encoding="utf-8")


def _check(card: StudentCard, method: Method | None) -> None:
    if card.method != (method.name if method else None):
        raise SparseError(
            f"method={method and method.name!r}, but the card says {card.method!r}; needs the same."
        )
    if StudentCard.read(card.text().encode()) != card:
        raise SparseError("This card would not be read back as it is; please report this.")


def _adapter_config(model: Any, adapter: str, card: StudentCard) -> Any:
    config = getattr(model, "peft_config", {}).get(adapter)
    found = config and (config.r, config.lora_alpha)
    if found != (card.rank, card.alpha):
        raise SparseError(
            f"The card says rank {card.rank} and alpha {card.alpha}; adapter {adapter!r} of "
            f"{type(model).__name__} has {found or 'nothing'}."
        )
    return config


def _write_model(folder: Path, model: Any) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    config = folder / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)  # a path of the machine it was trained on
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
