"""A NaN stops a training before it reaches weights or optimisers, and the error says the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from tiny_training import forget_accelerate, settings_of, training_of, weights_of

from sparsediff.distill.training.acceleration import accelerator_for
from sparsediff.distill.training.distillation import Distillation
from sparsediff.distill.training.learner import Learner
from sparsediff.distill.training.trainer import Trainer
from sparsediff.kernels.errors import SparseError

# What one of both roles has: weights, and AdamW's two moments and counter of each.
Everything = dict[str, torch.Tensor]


def everything(training: Distillation, role: str) -> Everything:
    found = {n: v for n, v in weights_of(training).items() if n.startswith(role)}
    states = training.trainer.learners[role].optimizer.state_dict()["state"]  # type: ignore[index]
    moments = {f"{i}.{n}": v.clone() for i, s in states.items() for n, v in s.items()}
    return found | moments


def same(one: Everything, two: Everything) -> bool:
    return one.keys() == two.keys() and all(torch.equal(v, two[n]) for n, v in one.items())


def plant(
    training: Distillation, monkeypatch: pytest.MonkeyPatch, role: str, where: str, at: int
) -> dict[str, Any]:
    """A NaN at iteration `at` in the loss of a role, or in one gradient of it; what was before."""
    update = Trainer._update
    before: dict[str, Any] = {}

    def planted(self: Trainer, who: Any, parts: Any, loss_of: Callable[[Any], Any]) -> Any:
        if self.iteration != at or who != role:
            return update(self, who, parts, loss_of)
        before.update({r: everything(training, r) for r in ("student", "fake")})
        if where == "loss":
            return update(self, who, parts, lambda part: loss_of(part) * math.nan)
        value = next(iter(training.setup.roles.parameters(who).values()))
        hook = value.register_hook(
            lambda gradient: gradient.index_fill(0, torch.tensor(0), math.nan)
        )
        try:
            return update(self, who, parts, loss_of)
        finally:
            hook.remove()

    monkeypatch.setattr(Trainer, "_update", planted)
    return before


@pytest.mark.parametrize(
    ("role", "where"), [("student", "loss"), ("student", "gradient"), ("fake", "gradient")]
)
def test_nothing_takes_it_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, where: str
) -> None:
    training = training_of(tmp_path, iterations=3, checkpoint_every=1)
    before = plant(training, monkeypatch, role, where, at=2)
    words = "The loss of the" if where == "loss" else "The gradients of the"
    with pytest.raises(SparseError) as caught:
        training.run()
    said = str(caught.value)
    assert said.startswith(f"{words} {role}")
    assert "at iteration 2" in said
    checkpoint = tmp_path / "training" / "checkpoints" / "iteration-000002"
    assert f"The last good checkpoint is {checkpoint}: go on" in said
    assert "--resume_from_checkpoint latest" in said
    for one in ("student", "fake"):
        assert same(everything(training, one), before[one])
        assert all(v.isfinite().all() for v in before[one].values())


def test_from_the_checkpoint_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(tmp_path / "out", iterations=3, checkpoint_every=2)
    with monkeypatch.context() as patched:
        plant(training, patched, "student", "gradient", at=2)
        with pytest.raises(SparseError, match="The last good checkpoint"):
            training.run()
    again = training_of(tmp_path / "out", resume="latest", iterations=3, checkpoint_every=2)
    again.run()
    never = training_of(tmp_path / "never", iterations=3, checkpoint_every=2)
    never.run()
    assert same(weights_of(again), weights_of(never))


def test_without_a_checkpoint_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(tmp_path)
    plant(training, monkeypatch, "fake", "loss", at=0)
    with pytest.raises(SparseError, match=r"is nan at iteration 0\. There is no checkpoint yet"):
        training.run()


def scaled_training(
    out: Path, monkeypatch: pytest.MonkeyPatch, scale: float, **changes: Any
) -> Distillation:
    """A training as fp16 has it: losses times a scale, which the optimisers take off again."""
    forget_accelerate()
    settings = settings_of(**changes)
    accelerator = accelerator_for(settings, out, cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    monkeypatch.setattr("tiny_training.accelerator_for", lambda *args, **words: accelerator)
    monkeypatch.setattr("tiny_training.forget_accelerate", lambda: None)
    training = training_of(out, **changes)
    # Only now: fp16 is not for CPUs, so accelerate refuses it there.
    accelerator.native_amp = True
    monkeypatch.setattr(accelerate.Accelerator, "mixed_precision", property(lambda self: "fp16"))
    return training


def test_fp16_tries_a_lower_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = scaled_training(tmp_path, monkeypatch, 1024.0, iterations=3, checkpoint_every=0)
    before = plant(training, monkeypatch, "student", "gradient", at=1)
    kept: dict[str, Any] = {}
    update = Learner.update

    def noted(self: Learner, accelerator: Any) -> float:
        norm = update(self, accelerator)
        if not math.isfinite(norm):
            kept["scale"] = accelerator.scaler.get_scale()
            kept["same"] = same(everything(training, "student"), before["student"])
            kept["step"] = self.schedule.last_epoch
        return norm

    monkeypatch.setattr(Learner, "update", noted)
    training.run()
    assert kept == {"scale": 512.0, "same": True, "step": 1}
    log = (tmp_path / "training" / "log.jsonl").read_text().splitlines()
    assert ['"student_norm": null' in line for line in log] == [False, True, False]
    assert not same(everything(training, "student"), before["student"])


def test_fp16_scales_change_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = training_of(tmp_path / "plain", iterations=2, checkpoint_every=0)
    plain.run()
    scaled = scaled_training(
        tmp_path / "scaled", monkeypatch, 256.0, iterations=2, checkpoint_every=0
    )
    scaled.run()
    assert same(weights_of(scaled), weights_of(plain))  # a power of two is exact in float32


def test_fp16_without_a_scale_left_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = scaled_training(tmp_path, monkeypatch, 1.0)
    plant(training, monkeypatch, "student", "gradient", at=1)
    with pytest.raises(SparseError, match=r"The gradients of the student have norm nan"):
        training.run()
