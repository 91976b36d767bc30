"""An earlier student's weights, to go on from: at another size, with other attention."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sparsediff.distill.student.student_adapter import WEIGHTS
from sparsediff.distill.student.student_card import CARD, StudentCard, check_base
from sparsediff.distill.student.student_source import StudentSource
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.kernels.errors import SparseError
from sparsediff.plans import Fingerprint


def check_earlier(folder: Path, settings: DistillSettings) -> StudentCard:
    """The card of a student that a LoRA of these settings can go on from; no weight is read.

    Raises SparseError when there is none, or its rank or alpha is another: the same weights under
    another alpha are another student.
    """
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise SparseError(
                f"{folder} holds no {name}; needs the folder of a student that was trained with LoRA."
            )
    card = StudentSource.of(folder).card()
    if (card.rank, card.alpha) != (settings.lora_rank, settings.lora_alpha):
        raise SparseError(
            f"The student in {folder} has rank {card.rank} and alpha {card.alpha}, not "
            f"{settings.lora_rank} and {settings.lora_alpha}. Go on from it with --lora-rank "
            f"{card.rank} --lora-alpha {card.alpha}."
        )
    return card


def read_adapter(
    folder: Path, settings: DistillSettings, component: str, base: Fingerprint
) -> dict[str, Tensor]:
    """The weights of a student's folder by the names they have in the model `base` is of.

    Raises SparseError when there are none, or of another model.
    """
    check_base(check_earlier(folder, settings), base)
    start = f"{component}."
    path = folder / WEIGHTS
    weights = {n.removeprefix(start): v for n, v in load_file(path).items() if n.startswith(start)}
    if not weights:
        raise SparseError(f"{path} holds nothing for {component}; was it another model's student?")
    return weights
