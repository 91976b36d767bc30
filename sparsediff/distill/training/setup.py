"""Setup: from a pipeline, prompts and settings to everything a training round needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sparsediff.distill.draws import seed_of
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.matching import TrajectoryMatching
from sparsediff.distill.noise import Noise, noise_of
from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.recording.conditions import Conditions, Inputs
from sparsediff.distill.recording.tree import distance, leaves
from sparsediff.distill.student.student_scheduler import student_scheduler
from sparsediff.distill.training.roles import FullRoles, LoraRoles, Role, Roles
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.kernels.errors import SparseError
from sparsediff.models import denoisers
from sparsediff.plans import Fingerprint
from sparsediff.search import METHODS, Method

# Methods that decide each call by itself: a training step is not part of a run.
STATELESS = ("blade-asa", "window", "random")
_SPARSE_ROLES: dict[str, tuple[Role, ...]] = {
    "both": ("student", "fake"),
    "student": ("student",),
    "none": (),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """``model`` the pipeline's denoiser, ``component`` its name, ``base`` what tells it from others;
    ``guidance`` of the teacher, ``student_guidance`` of the student's run. ``call``: how a pipeline is
    called to run the student; its ``guidance_name`` is the pipeline's word for guidance, None where
    it has none.

    ``own_sigmas``: the pipeline, not the scheduler's configuration, makes the noise levels.
    """

    pipe: Any
    component: str
    base: Fingerprint
    model: nn.Module
    scheduler: Any
    levels: Noise
    grid: StepGrid
    inputs: Inputs
    conditions: Sequence[Conditions]
    own_sigmas: bool
    guidance: float
    student_guidance: float
    guidance_name: str | None
    call: Mapping[str, Any]
    method: Method | None
    roles: Roles
    matching: TrajectoryMatching

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str | Conditions], settings: DistillSettings) -> Setup:
        """Encode the prompts, put the student's scheduler into the pipeline, make the roles.

        Prompts that are `Conditions` are encoded already. Raises SparseError for pipelines and
        settings that do not go together.
        """
        component, model = _only_denoiser(pipe)
        method = sparse_method(settings)
        base = Fingerprint.of(pipe)  # before adapters change the names of its weights
        recorder = ConditionRecorder(
            pipe, model, settings.call, steps=settings.steps, guidance=settings.guidance
        )
        pipe.scheduler = student_scheduler(
            pipe.scheduler, settings.steps, settings.shift, own_sigmas=recorder.own_sigmas
        )
        if settings.student_guidance != 1:
            recorder.check_guidance(settings.student_guidance)
        conditions = encoded(recorder, prompts)
        scheduler = pipe.scheduler = recorder.scheduler  # with its timesteps set
        levels = noise_of(scheduler)
        grid = StepGrid.of(scheduler, levels)
        return cls(
            pipe=pipe,
            component=component,
            base=base,
            model=model,
            scheduler=scheduler,
            levels=levels,
            grid=grid,
            inputs=recorder.inputs,
            conditions=conditions,
            own_sigmas=recorder.own_sigmas,
            guidance=1.0 if recorder.guidance is None else recorder.guidance,
            student_guidance=settings.student_guidance,
            guidance_name=recorder.guidance_name or None,
            call=_student_call(recorder, conditions[0], settings.student_guidance),
            method=method,
            roles=_roles(model, method, settings),
            matching=TrajectoryMatching(
                levels=levels,
                grid=grid,
                churn=settings.churn,
                separate=settings.separate,
                huber=settings.huber,
                normalise=settings.normalise,
                nearness=settings.nearness,
                to_the_end=settings.shard,
            ),
        )


def encoded(recorder: ConditionRecorder, prompts: Sequence[str | Conditions]) -> list[Conditions]:
    """The conditions of prompts, on the CPU; what several have alike is kept once.

    Raises SparseError for conditions that were made for another model.
    """
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    known = recorder.record(texts[0] if texts else "a red ball")
    found: list[Conditions] = []
    for prompt in prompts:
        one = recorder.record(prompt) if isinstance(prompt, str) else prompt
        if leaves(one.positive).keys() != leaves(known.positive).keys():
            raise SparseError(
                f"These conditions hold {', '.join(leaves(one.positive))}, but "
                f"{type(recorder.pipe).__name__} tells its model {', '.join(leaves(known.positive))}. "
                f"Encode the prompts with the model that is trained."
            )
        if (one.negative is None) != (known.negative is None):
            raise SparseError(
                f"These conditions were made {'without' if one.negative is None else 'with'} a "
                f"negative side, which this guidance {'needs' if one.negative is None else 'has not'}. "
                f"Encode the prompts with the guidance that is trained."
            )
        alike = found and one.negative is not None
        if alike and distance(one.negative, found[0].negative) == 0:
            one = replace(one, negative=found[0].negative)
        found.append(one)
    return found


def _student_call(recorder: ConditionRecorder, known: Conditions, scale: float) -> dict[str, Any]:
    """With the student's own guidance; one that is told to the model stays."""
    call = dict(recorder.call)
    if recorder.guidance_name and known.negative is not None:
        call[recorder.guidance_name] = scale
    return call


def sparse_method(settings: DistillSettings) -> Method | None:
    """The method of the settings, None for dense; SparseError for one that cannot be trained with."""
    if settings.method is None or settings.sparse_in == "none":
        return None
    options = dict(settings.method)
    name = options.pop("name", None)
    if name not in STATELESS:
        raise SparseError(
            f"method={name!r}: a student is trained one step at a time, so its attention must decide "
            f"each call by itself. Choose one of {', '.join(STATELESS)}, or none."
        )
    method = METHODS[name]().with_options(**options)
    if method.warmup or method.dense_layers:
        raise SparseError(
            f"warmup={method.warmup:g}, dense_layers={method.dense_layers}: every step and layer of a "
            f"student is sparse in training, so it must be when it is used. Leave both at 0."
        )
    return method


def _only_denoiser(pipe: Any) -> tuple[str, nn.Module]:
    models = denoisers(pipe)
    if len(models) != 1:
        raise SparseError(
            f"{type(pipe).__name__} has {len(models)} denoising models ({', '.join(models)}); "
            f"distillation trains one. Models with two, such as Wan 2.2's, are not supported."
        )
    return next(iter(models.items()))


def _roles(model: nn.Module, method: Method | None, settings: DistillSettings) -> Roles:
    from sparsediff.api import enable_sparse_attention

    def sparse(target: nn.Module) -> Any:
        # Without the gate: what is trained must not depend on how fast this machine is.
        return enable_sparse_attention(target, method or "blade-asa", gate=False)

    roles = _SPARSE_ROLES[settings.sparse_in]
    if settings.lora_rank == 0:
        return FullRoles(model, session_of=sparse if method else None, sparse=roles)
    return LoraRoles(
        model,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        targets=settings.lora_targets,
        session=sparse(model) if method else None,
        sparse=roles,
        seed=seed_of(settings.seed, "adapters"),
    )
