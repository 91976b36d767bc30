"""Students of tiny pipelines: a random LoRA, as a training would leave it on the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsediff.distill.student.student_card import StudentCard
from sparsediff.distill.student.student_files import save_student
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.distill.student.visited_grid import visited_grid
from sparsediff.plans import Fingerprint
from sparsediff.search import Method

STEPS, RANK, ALPHA = 4, 2, 3.0
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def component_of(pipe: Any) -> str:
    return "unet" if hasattr(pipe, "unet") else "transformer"


def add_student(model: Any) -> None:
    """A stock model with a random adapter "student", whose alpha is not its rank."""
    from peft import LoraConfig

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS)
    model.requires_grad_(False)
    model.add_adapter(config, adapter_name="student")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".student." in name:
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))


def card_of(
    pipe: Any,
    base: Fingerprint,
    scheduler: Any,
    *,
    method: Method | None = None,
    own_sigmas: bool = False,
    lora: bool = True,
) -> StudentCard:
    """The card of a student; the scheduler's timesteps are set."""
    timesteps, sigmas = visited_grid(scheduler)
    return StudentCard(
        component=component_of(pipe),
        base=base,
        steps=STEPS,
        timesteps=timesteps,
        sigmas=sigmas,
        own_sigmas=own_sigmas,
        method=method.name if method else None,
        teacher_guidance=5.0,
        rank=RANK if lora else None,
        alpha=ALPHA if lora else None,
        model="somebody/model",
        command="sparsediff distill somebody/model",
        figures={"student_loss": 0.25},
        versions={"torch": "2.13"},
    )


def make_student(
    pipe: Any, folder: Path, *, method: Method | None = None, own_sigmas: bool = False
) -> StudentCard:
    """Save a student of a pipeline, which keeps its adapter and gets the student's scheduler."""
    base = Fingerprint.of(pipe, steps=STEPS)
    model = getattr(pipe, component_of(pipe))
    add_student(model)
    pipe.scheduler = student_scheduler(pipe.scheduler, STEPS, own_sigmas=own_sigmas)
    given = {"sigmas": [1 - step / STEPS for step in range(STEPS)]} if own_sigmas else {}
    pipe.scheduler.set_timesteps(**given or {"num_inference_steps": STEPS})
    card = card_of(pipe, base, pipe.scheduler, method=method, own_sigmas=own_sigmas)
    save_student(folder, card=card, model=model, scheduler=pipe.scheduler, method=method)
    return card
