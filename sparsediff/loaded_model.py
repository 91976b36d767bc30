"""LoadedModel: a pipeline with its weights in memory, ready for one run after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsediff.distill.student.load_student import load_student
from sparsediff.generation_request import GenerationRequest
from sparsediff.loading import load_pipeline, resolve_device, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.step_watch import Watcher
from sparsediff.timed_run import Runner


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """The pipeline ``pipe`` of a model by name, on ``device`` with weights in ``dtype``."""

    pipe: Any
    device: str
    dtype: str

    @classmethod
    def of(cls, request: GenerationRequest) -> LoadedModel:
        """Load what a request asks for; raises SparseError when that is impossible."""
        recipe = request.recipe()
        device = resolve_device(request.device)
        dtype = resolve_dtype(request.dtype, recipe, device)
        pipe = load_pipeline(ModelFiles(name=request.model), dtype=dtype, device=device)
        if request.student is not None:
            # Fused: as fast dense as the model that both are compared to.
            load_student(pipe, request.student, sparse=False, fuse=True)
        return cls(pipe=pipe, device=device, dtype=dtype)

    def runner(
        self, request: GenerationRequest, *, bars: bool = False, watcher: Watcher | None = None
    ) -> Runner:
        """What makes the runs of a request for this model.

        Raises SparseError when the pipeline does not take an argument of the request.
        """
        recipe = request.recipe()
        return Runner(
            self.pipe,
            recipe,
            prompt=recipe.prompt,
            seed=request.seed,
            device=self.device,
            bars=bars,
            watcher=watcher,
        )
