"""Three roles on one base, or on three models: none touches what belongs to another."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import wan
from tiny_training import LAYERS, PROMPTS, settings_of, training_of, watched

from sparsediff.distill.draws import Draws
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.roles import FullRoles, LoraRoles
from sparsediff.distill.training.setup import Setup
from sparsediff.kernels.errors import SparseError

RANKS = [2, 0]  # LoRA, all weights


def asked(roles: Any, role: str) -> torch.Tensor:
    """What the model of a role says of a fixed input."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 3, 8, 8, generator=generator)
    text = torch.randn(1, 16, 32, generator=generator)
    with roles.playing(role) as model:
        return model(latents, torch.tensor([500.0]), text, return_dict=False)[0]


def base_state(model: Any) -> dict[str, torch.Tensor]:
    """The weights that the base had before it got adapters, by their names then."""
    state = model.state_dict()
    kept = {k: v for k, v in state.items() if ".lora_" not in k}
    return {k.replace(".base_layer", ""): v.clone() for k, v in kept.items()}


@pytest.mark.parametrize("rank", RANKS)
def test_the_teacher_is_the_base_before_and_after_training(tmp_path: Path, rank: int) -> None:
    untouched = wan(layers=LAYERS).transformer
    with torch.no_grad():
        expected = untouched(
            torch.randn(1, 16, 3, 8, 8, generator=(g := torch.Generator().manual_seed(0))),
            torch.tensor([500.0]),
            torch.randn(1, 16, 32, generator=g),
            return_dict=False,
        )[0]
    training = training_of(tmp_path, lora_rank=rank)
    roles = training.setup.roles
    started = {r: asked(roles, r).detach() for r in ("student", "fake")}
    assert torch.equal(asked(roles, "teacher"), expected)
    with watched(training) as counts:
        training.run()
    assert torch.equal(asked(roles, "teacher"), expected)
    for role, before in started.items():
        assert not torch.equal(asked(roles, role), before)
        assert counts[role, "sparse"] > 0
        assert counts[role, "left out"] == counts[role, "sparse"]
    assert counts["teacher", "sparse"] == 0
    if rank:  # the same model as the student's: only a paused session makes it dense
        assert counts["teacher", "on"] == 0 < counts["teacher", "paused"]
    state = base_state(roles.trained("student") if rank else training.setup.model)
    assert all(torch.equal(state[k], v) for k, v in untouched.state_dict().items())
    assert len(state) == len(untouched.state_dict())


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_reach_the_role_that_learns(tmp_path: Path, rank: int) -> None:
    training = training_of(tmp_path, lora_rank=rank)
    trainer, roles = training.trainer, training.setup.roles
    trainable = {id(v) for r in ("student", "fake") for v in roles.parameters(r).values()}
    part = trainer.objective.prepare(trainer.order.samples(trainer.iteration, 0))
    models = {id(m): m for m in (roles.trained("student"), roles.trained("fake"))}
    everything = [v for m in models.values() for v in m.parameters()]
    for role, loss_of in trainer.objective.updates():
        with roles.playing(role):
            loss_of(part).backward()
        own = {id(v) for v in roles.parameters(role).values()}
        reached = {id(v) for v in everything if v.grad is not None}
        assert reached
        assert reached <= own
        assert {id(v) for v in everything if v.requires_grad} == trainable
        for value in everything:
            value.grad = None
    assert all(not v.requires_grad for v in training.setup.model.parameters()) == (rank == 0)


@pytest.mark.parametrize(
    ("rank", "sparse_in", "sparse"),
    [
        (2, "both", {"student", "fake"}),
        (2, "student", {"student"}),
        (2, "none", set()),
        (0, "student", {"student"}),
    ],
)
def test_only_the_roles_asked_for_are_sparse(
    tmp_path: Path, rank: int, sparse_in: str, sparse: set[str]
) -> None:
    training = training_of(tmp_path, lora_rank=rank, sparse_in=sparse_in)
    with watched(training) as counts:
        training.trainer.train_iteration()
    assert {role for role in ("teacher", "student", "fake") if counts[role, "sparse"]} == sparse
    assert all(counts[role, "left out"] == counts[role, "sparse"] for role in sparse)
    assert all(
        counts[role, "on"] + counts[role, "paused"] for role in ("teacher", "student", "fake")
    )


@pytest.mark.parametrize("rank", RANKS)
def test_checkpointing_gives_the_same_gradients(tmp_path: Path, rank: int) -> None:
    """Its forward runs again in the backward pass, after teacher and fake were asked."""
    found: dict[bool, dict[str, torch.Tensor]] = {}
    calls: dict[bool, int] = {}
    for again in (False, True):
        training = training_of(tmp_path, lora_rank=rank, gradient_checkpointing=again)
        trainer, roles = training.trainer, training.setup.roles
        part = trainer.objective.prepare(trainer.order.samples(trainer.iteration, 0))
        # Adapters that are 0 would hide which of them was recomputed.
        generator = torch.Generator().manual_seed(5)
        for role in ("student", "fake"):
            for value in roles.parameters(role).values():
                noise = torch.randn(value.shape, generator=generator)
                value.data += 0.05 * noise
        with watched(training) as counts:
            for role, loss_of in trainer.objective.updates():
                loss = loss_of(part)
                asked(roles, "teacher")
                asked(roles, "fake" if role == "student" else "student")
                with roles.playing(role):
                    loss.backward()
        calls[again] = counts["student", "left out"]
        found[again] = {
            f"{role}.{name}": value.grad
            for role in ("student", "fake")
            for name, value in roles.parameters(role).items()
            if value.grad is not None
        }
    assert calls[True] > calls[False] > 0
    assert found[True].keys() == found[False].keys()
    assert all(torch.equal(found[True][k], v) for k, v in found[False].items())
    assert any(v.abs().max() > 0 for k, v in found[True].items() if k.startswith("student"))


def test_adapters_begin_alike_for_a_seed_and_touch_no_generator() -> None:
    def adapters(seed: int) -> dict[str, torch.Tensor]:
        model = wan(layers=1).transformer
        torch.manual_seed(seed + 100)
        before = torch.random.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # peft warns of a second adapter
            roles = LoraRoles(model, rank=2, alpha=2.0, targets=["to_q"], seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return roles.parameters("student") | roles.parameters("fake")

    one, two, other = adapters(3), adapters(3), adapters(4)
    assert all(torch.equal(two[k], v) for k, v in one.items())
    assert not all(torch.equal(other[k], v) for k, v in one.items())


def test_adapters_of_a_bfloat16_base_are_float32(tmp_path: Path) -> None:
    pipe = wan(layers=1)
    pipe.transformer.to(torch.bfloat16)
    pipe.text_encoder.to(torch.bfloat16)
    setup = Setup.of(pipe, PROMPTS[:1], settings_of())
    assert setup.inputs.dtype == torch.bfloat16
    kinds = {v.dtype for r in ("student", "fake") for v in setup.roles.parameters(r).values()}
    assert kinds == {torch.float32}
    conditions = setup.conditions[0]
    x = Draws([0]).normal(torch.empty(1, *setup.inputs.shape))
    clean, noise = Actors(setup=setup, conditions=conditions).student()(
        x, setup.levels.at(torch.tensor([900.0]))
    )
    (clean + noise).sum().backward()
    assert all(v.grad is not None for v in setup.roles.parameters("student").values())
    with pytest.raises(SparseError, match=r"bfloat16, too coarse.*--dtype float32"):
        FullRoles(pipe.transformer)


@pytest.mark.parametrize("targets", [["to_q", "to_quiet"], ["nothing"], ["norm1"], []])
def test_layers_that_the_model_has_not_are_named(targets: list[str]) -> None:
    with pytest.raises(SparseError, match="--lora-targets"):
        LoraRoles(wan(layers=1).transformer, rank=2, alpha=2.0, targets=targets)
