"""ConditionRecorder: what a pipeline tells its model for a prompt, recorded from its own call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.first_steps import Call, FirstSteps
from sparsediff.distill.recording.model_inputs import (
    check_guided,
    check_step,
    inputs_of,
    only_call,
)
from sparsediff.distill.recording.tree import Tree, batched_leaves, distance, halves, walk
from sparsediff.kernels.errors import SparseError

_PROBE = "a red ball"
_PER_PROMPT = ("num_videos_per_prompt", "num_images_per_prompt")
_PICTURES = ("image", "images", "video", "last_image", "conditions", "reference_images")


class ConditionRecorder:
    """Calls a pipeline whose model is answered for, and keeps what the model was told.

    ``call``: arguments of the pipeline besides the prompt; `steps` of the student; `guidance` None
    for that of the call or the pipeline's own. ``guidance_name`` is the pipeline's argument for it
    and ``guidance`` its value, None where there is none. ``own_sigmas``: the pipeline, not its
    scheduler, makes the noise levels; ``scheduler``: a copy of the pipeline's, its timesteps set
    by the call recorded last.

    Raises SparseError for pipelines that do more between model and scheduler than guidance, whose
    input is not the noise alone, or with a timestep of its own for every frame.
    """

    def __init__(
        self,
        pipe: Any,
        model: nn.Module,
        call: Mapping[str, Any],
        *,
        steps: int,
        guidance: float | None = None,
    ) -> None:
        self.pipe, self.model, self.who = pipe, model, type(pipe).__name__
        self.call = {**call, "num_inference_steps": steps}
        self._taken = inspect.signature(pipe.__call__).parameters
        self._refuse_pictures()
        self.guidance_name = self._guidance_name()
        if guidance is not None and self.guidance_name:
            self.call[self.guidance_name] = guidance
        self.guidance = self._guidance()
        self._first = FirstSteps(pipe, model)
        heard = self._first.run(self._alone(_PROBE) | {"num_inference_steps": max(2, steps)}, 2)
        self.own_sigmas, self.scheduler = heard.own_sigmas, heard.scheduler
        one = only_call(self.who, heard.steps[0])
        self.inputs = inputs_of(self.who, self._first, heard.steps)
        self.rows = len(one.noisy)
        self.batched = self._batched(one)

    def record(self, prompt: str) -> Conditions:
        """The conditions of one prompt, on the CPU; SparseError when they cannot be told apart."""
        heard = self._first.run({**self.call, "prompt": prompt})
        step, self.scheduler = heard.steps[0], heard.scheduler
        calls = step.calls
        if len(calls) == 1 and len(calls[0].noisy) == self.rows:
            check_step(self.who, step, self.inputs.sign)
            return self._conditions(calls[0].told, None)
        alone = self._first.run(self._alone(prompt)).steps[0]
        check_step(self.who, alone, self.inputs.sign)
        sides: list[Tree] = [call.told for call in calls]
        if len(calls) == 1:
            sides = list(halves(calls[0].told, self.batched))
        far = [distance(side, alone.calls[0].told) for side in sides]
        if len(sides) != 2 or not min(far) < 0.1 * max(far):  # 0 and 0, or infinite both
            raise SparseError(
                f"{self.who} makes {len(sides)} predictions a step, of which none "
                f"or more than one is of the prompt; training needs one with it and one without. "
                f"Use another prompt than the negative one, and guidance_scale > 1."
            )
        first = far[0] < far[1]
        return self._conditions(sides[0 if first else 1], sides[1 if first else 0])

    def check_guidance(self, scale: float) -> None:
        """Raise SparseError unless a run with this scale guides as diffusers means it.

        Needs a teacher with guidance too, or no conditions without the prompt are recorded.
        """
        if not self.guidance_name or (self.guidance or 0.0) <= 1.0:
            found = "none" if self.guidance is None else f"a scale of {self.guidance:g}"
            raise SparseError(
                f"student_guidance={scale:g}: a student that is run with guidance needs a teacher with "
                f"it, and {self.who} has {found} here. Give the teacher a guidance above 1, or leave "
                f"student_guidance at 1."
            )
        step = self._first.run({**self.call, "prompt": _PROBE, self.guidance_name: scale}).steps[0]
        check_guided(self.who, step, self.inputs.sign, scale)

    def _conditions(self, positive: Any, negative: Any) -> Conditions:
        def owned(path: str, x: Tensor) -> Tensor:
            return x.cpu().contiguous().clone()  # a half of a batch would keep the whole

        return Conditions(
            positive=walk(positive, owned),
            negative=None if negative is None else walk(negative, owned),
            batched=self.batched,
        )

    def _refuse_pictures(self) -> None:
        if given := [name for name in _PICTURES if self.call.get(name) is not None]:
            raise SparseError(
                f"{self.who} is given {', '.join(given)}; training is for text to "
                f"video or image: it has no data for pictures to start from."
            )

    def _guidance_name(self) -> str:
        """Where guidance is embedded, true_cfg_scale is a second one, which is off by default."""
        config: Any = self.model.config
        embedded = config.get("guidance_embeds") and "true_cfg_scale" not in self.call
        names = ("guidance_scale",) if embedded else ("true_cfg_scale", "guidance_scale")
        return next((name for name in names if name in self._taken), "")

    def _guidance(self) -> float | None:
        if not self.guidance_name:
            return None
        value = self.call.get(self.guidance_name, self._taken[self.guidance_name].default)
        return float(value) if isinstance(value, int | float) else None

    def _alone(self, prompt: str) -> dict[str, Any]:
        """The call without classifier-free guidance."""
        off = {self.guidance_name: 1.0} if self.guidance_name else {}
        return {**self.call, "prompt": prompt, **off}

    def _batched(self, one: Call) -> frozenset[str]:
        """What differs in a call of the model for two samples, asked for in one way or the other."""
        texts = {"prompt": _PROBE, "negative_prompt": self.call.get("negative_prompt")}
        lists = {name: [text] * 2 for name, text in texts.items() if isinstance(text, str)}
        ways = [{name: 2} for name in _PER_PROMPT if name in self._taken] + [lists]
        failed: SparseError | None = None
        for way in ways:
            try:
                two = only_call(self.who, self._first.run(self._alone(_PROBE) | way).steps[0])
                found = batched_leaves(one.told, two.told, f"{self.who} ")
            except SparseError as error:
                failed = error
                continue
            # CogVideoX knows one video per prompt only, Kandinsky 5 repeats the noise alone.
            if found and len(two.noisy) == 2 * self.rows:
                return found
        why = "makes one sample at a time." if failed is None else f"cannot make two: {failed}"
        raise SparseError(
            f"What belongs to a sample cannot be told from what belongs to all: {self.who} {why}"
        ) from failed
