"""A training of 2:4 masks that was ended goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.mask_checkpoint import load_checkpoint, save_checkpoint
from sparsediff.prune.semi_structured.mask_settings import MaskSettings
from sparsediff.prune.semi_structured.mask_training import MaskFigures, MaskTraining


class EndedError(Exception):
    pass


def training(inputs: int = 8, **changes: Any) -> MaskTraining:
    layer = nn.Linear(inputs, 4, bias=False)
    layer.weight.data = torch.randn(4, inputs, generator=torch.Generator().manual_seed(0))

    class Output:
        def prepare(self, iteration: int) -> Tensor:
            random = torch.Generator().manual_seed(iteration)
            return torch.randn(16, inputs, generator=random)

        def loss(self, part: Tensor) -> Tensor:
            return layer(part).square().mean()

    return MaskTraining(layer, {"a": layer}, Output(), MaskSettings(**{"iterations": 6, **changes}))


def ended_after(three: MaskTraining, path: Path) -> None:
    def told(figures: MaskFigures) -> None:
        if figures.iteration == 3:
            save_checkpoint(three, path)
            raise EndedError

    with pytest.raises(EndedError):
        three.train(told)


def test_it_goes_on_bit_by_bit(tmp_path: Path) -> None:
    whole = training()
    masks = whole.train()
    ended_after(training(), tmp_path / "state")
    second = training(memory_gb=1.0)
    load_checkpoint(second, tmp_path / "state")
    heard: list[int] = []
    again = second.train(lambda figures: heard.append(figures.iteration))
    assert heard == [4, 5, 6]
    assert torch.equal(second.masks.gates["a"], whole.masks.gates["a"])
    assert torch.equal(again.choices["a"], masks.choices["a"])


def test_it_takes_18_bytes_a_weight(tmp_path: Path) -> None:
    ended_after(training(), tmp_path / "state")
    assert sum(one.nbytes for one in load_file(tmp_path / "state").values()) == 18 * 4 * 8


def test_other_trainings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    ended_after(training(), path)
    with pytest.raises(SparseError, match="other settings"):
        load_checkpoint(training(seed=1), path)
    other = training(inputs=16)
    with pytest.raises(SparseError, match=r"needs finite torch.float32 \[16, 6\]"):
        load_checkpoint(other, path)
    assert other.iteration == 0
    assert not other.optimizer.state
    with pytest.raises(SparseError, match="nothing to keep"):
        save_checkpoint(training(), path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, wrong = tmp_path / "state", tmp_path / "wrong"
    ended_after(training(), path)
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    save_file({name: tensors[name] for name in [*tensors][1:]}, wrong, metadata=about)
    with pytest.raises(SparseError, match="other layers"):
        load_checkpoint(training(), wrong)
    save_file(tensors | {"gates/a": tensors["gates/a"] * float("nan")}, wrong, metadata=about)
    with pytest.raises(SparseError, match="gates/a is"):
        load_checkpoint(training(), wrong)
    for number in ("7", "0", "x", "9" * 5000):
        save_file(tensors, wrong, metadata=about | {"iteration": number})
        with pytest.raises(SparseError, match="needs 1 to 6"):
            load_checkpoint(training(), wrong)
    save_file(tensors, wrong, metadata={"schema": "else"})
    with pytest.raises(SparseError, match="schema 'else'"):
        load_checkpoint(training(), wrong)
    wrong.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SparseError, match="cannot be read"):
        load_checkpoint(training(), wrong)
