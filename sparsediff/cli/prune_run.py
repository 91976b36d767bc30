"""What `sparsediff prune` does with a pipeline, and with a model alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sparsediff.cli.prompt_file import read_prompts
from sparsediff.cli.prune import REPORT, TRAINING, recipe_of
from sparsediff.cli.prune_samples import sample
from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import hide_library_bars, load_pipeline, resolve_device, resolve_dtype
from sparsediff.model_files import ModelFiles, read_object
from sparsediff.output_folder import require_free
from sparsediff.prune.example_batch import example_batch
from sparsediff.prune.masks import Masks
from sparsediff.prune.model_folder import load_model
from sparsediff.prune.origin import earlier_masks
from sparsediff.prune.original_paths import original_masks
from sparsediff.prune.pipeline_model import prunable_model
from sparsediff.prune.proof_batch import proof_batch
from sparsediff.prune.pruned_folder import MASKS, MODEL, PIPELINE, check_place
from sparsediff.prune.pruning import PruneSettings, prune
from sparsediff.prune.pruning_result import PruningResult
from sparsediff.prune.saving import README, save_pruned
from sparsediff.prune.structures import structures_of
from sparsediff.prune.subject import Subject
from sparsediff.timed_run import Runner

_PROMPT = "a red ball"
RECIPE = "generation.json"


def prune_pipeline(args: argparse.Namespace, settings: PruneSettings) -> PruningResult:
    """Prune the model of a pipeline and save the pipeline with what is left."""
    files = ModelFiles(name=args.model)
    check_place(Path(args.out), alone=False, source=files.folder)
    recipe = recipe_of(args, GenerationRecipe.of(files))
    prompts = read_prompts(args.prompts, args.limit) if args.prompts else []
    shown = prompts[: args.samples] or [recipe.prompt or _PROMPT] * bool(args.samples)
    hide_library_bars()
    device = resolve_device(args.device)
    pipe = load_pipeline(files, dtype=resolve_dtype(args.dtype, recipe, device), device=device)
    require_free(Path(args.out), [README, REPORT, RECIPE, *pipe.components], mine=PIPELINE)
    component, model = prunable_model(pipe)
    earlier = earlier_masks(files.folder and files.folder / component, model)
    batch = proof_batch(pipe, model, (prompts or [recipe.prompt or _PROMPT])[0], recipe.call)
    subject = Subject(
        model=model,
        structures=structures_of(model, settings.target),
        pipe=pipe,
        prompts=prompts,
        call=_call(recipe, settings),
        seed=args.seed or 0,
        folder=Path(args.out) / TRAINING,
        resume=args.resume,
        progress=_teller(args),
    )
    pruning = prune(subject, settings, batch)
    models = {component: model}, {component: pruning.model}
    pairs = [
        sample(Runner(pipe, recipe, prompt=text, seed=n, device=device), models, args.repeat)
        for n, text in enumerate(shown, start=args.seed or 0)
    ]
    pipe.register_modules(**models[1])
    save_pruned(args.out, pipe, _of_the_original(earlier, pruning.masks))
    _keep_recipe(files, Path(args.out), args.dtype)
    return PruningResult(
        model=args.model,
        component=component,
        settings=settings,
        pruning=pruning,
        checked=True,
        samples=pairs,
        fps=recipe.fps,
    )


def prune_model(args: argparse.Namespace, settings: PruneSettings) -> PruningResult:
    """Prune a model that is there without its pipeline; nothing can be generated with it."""
    _check_alone(args, settings)
    device = resolve_device(args.device)
    folder = Path(args.model).expanduser()
    check_place(Path(args.out), alone=True, source=folder)
    require_free(Path(args.out), [README, REPORT, MASKS], mine=MODEL)
    model = load_model(folder, dtype=args.dtype, device=device)
    earlier = earlier_masks(folder, model)
    subject = Subject(model=model, structures=structures_of(model, settings.target))
    batch = example_batch(model)
    pruning = prune(subject, settings, batch)
    save_pruned(args.out, pruning.model, _of_the_original(earlier, pruning.masks))
    return PruningResult(
        model=args.model,
        component=type(model).__name__,
        settings=settings,
        pruning=pruning,
        checked=batch is not None,
    )


def _check_alone(args: argparse.Namespace, settings: PruneSettings) -> None:
    """Raise SparseError for what needs the pipeline; nothing that was asked for is passed over."""
    if settings.criterion.needs_prompts:
        raise SparseError(
            f"{args.model} is a model without its pipeline, which --objective {args.objective} runs. "
            f"Give the pipeline's folder, or choose magnitude or random."
        )
    for name in ("prompts", "steps", "guidance", "size"):
        if getattr(args, name) is not None:
            raise SparseError(
                f"--{name}: {args.model} is a model without its pipeline, so nothing is generated. "
                f"Leave it out, or give the pipeline's folder."
            )


def _call(recipe: GenerationRecipe, settings: PruneSettings) -> dict[str, Any]:
    """Arguments of the pipeline's own call, but for the number of steps where the criterion has it."""
    call = dict(recipe.call)
    if "steps" in settings.criterion.options():
        call.pop("num_inference_steps", None)
    return call


def _of_the_original(earlier: Masks | None, masks: Masks) -> Masks:
    return masks if earlier is None else original_masks(earlier, masks)


def _keep_recipe(files: ModelFiles, out: Path, dtype: str | None) -> None:
    """What makes a user type only a prompt goes along, with the dtype that was asked for."""
    if files.folder is None or not (files.folder / RECIPE).is_file():
        return
    told = read_object(files.folder / RECIPE)
    told |= {"dtype": dtype} if dtype else {}
    (out / RECIPE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _teller(args: argparse.Namespace) -> Any:
    def tell(done: int, of: int) -> None:
        if not args.quiet:
            print(f"{args.objective}: {done} of {of}", file=sys.stderr, flush=True)

    return tell
