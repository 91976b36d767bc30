"""GenerationRequest: what a user asks `generate` for, checked before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sparsediff.configuration import Choice, Configuration
from sparsediff.distill.student.student_card import StudentCard
from sparsediff.distill.student.student_source import StudentSource
from sparsediff.generation import GenerationRecipe
from sparsediff.kernels import backends
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles
from sparsediff.plans import PatternPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """What a user asks for; checked on construction, before any weight is read.

    ``model`` folder or Hub id; ``prompt`` None takes the recipe's; ``method`` as in
    `enable_sparse_attention`, a Method once constructed, and then ``plan`` the plan it came from;
    ``call`` pipeline arguments that replace the recipe's; ``repeat`` timed runs of each kind;
    ``compare`` also runs dense; ``gate`` as in `enable_sparse_attention`. ``student``: the folder or
    Hub id of a distilled student, which is run in place of the model, with the method it was trained
    with. Raises SparseError.
    """

    model: str
    prompt: str | None = None
    method: Choice = "adaspa"
    options: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "auto"
    seed: int = 0
    call: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 1
    compare: bool = False
    device: str | None = None
    dtype: str | None = None
    gate: bool = True
    student: str | None = None
    card: StudentCard | None = field(default=None, init=False)
    plan: PatternPlan | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.student is not None:
            self._take_student(StudentSource.of(self.student))
        config = Configuration.of(self.method, self.options)
        object.__setattr__(self, "method", config.method)
        object.__setattr__(self, "plan", config.plan)
        if self.backend not in ("auto", *backends()):
            raise SparseError(
                f"Unknown backend {self.backend!r}; choose one of auto, {', '.join(backends())}."
            )
        if self.repeat < 1:
            raise SparseError(f"repeat={self.repeat}: needs at least one run.")
        if not 0 <= self.seed < 2**63:
            raise SparseError(f"seed={self.seed}: needs a whole number from 0 to 2^63 - 1.")

    def _take_student(self, source: StudentSource) -> None:
        card = source.card()
        method = source.method(card)
        if method is not None:
            object.__setattr__(self, "method", method)
        steps = self.call.get("num_inference_steps", card.steps)
        if steps != card.steps:
            raise SparseError(
                f"--steps {steps}: this student was trained for {card.steps}, and has no noise levels "
                f"for another number. Leave it out."
            )
        object.__setattr__(self, "card", card)

    def recipe(self) -> GenerationRecipe:
        """The model's recipe with the user's arguments and prompt, of a model that is supported.

        An empty prompt that the user gave is a prompt. Raises SparseError when there is none at all.
        """
        files = ModelFiles(name=self.model)
        files.denoisers()
        recipe = GenerationRecipe.of(files).with_call(**self.call)
        if self.card is not None:
            own = {
                "num_inference_steps": self.card.steps,
                self.card.guidance_name: self.card.guidance,
            }
            recipe = recipe.with_call(**own)
        if self.prompt is not None:
            return replace(recipe, prompt=self.prompt)
        if not recipe.prompt:
            raise SparseError(
                f"There is no prompt: {self.model} has no generation.json with one. Give it after "
                f"the model, in quotes."
            )
        return recipe
