"""What `sparsediff prune` does with a pipeline, and with a model alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsediff.cli.prompt_file import read_prompts
from sparsediff.cli.prune import TRAINING, recipe_of
from sparsediff.generation import GenerationRecipe
from sparsediff.generation_result import Timing
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import hide_library_bars, load_pipeline, resolve_device, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.prune.masks import Masks
from sparsediff.prune.model_folder import load_model
from sparsediff.prune.original_paths import original_masks
from sparsediff.prune.pipeline_model import prunable_model
from sparsediff.prune.proof_batch import proof_batch
from sparsediff.prune.pruning import PruneSettings, Pruning, prune
from sparsediff.prune.pruning_result import PruningResult, Sample
from sparsediff.prune.saving import MASKS, save_pruned
from sparsediff.prune.structures import structures_of
from sparsediff.prune.subject import Subject
from sparsediff.timed_run import Runner, TimedRun

_PROMPT = "a red ball"


def prune_pipeline(args: argparse.Namespace, settings: PruneSettings) -> PruningResult:
    """Prune the model of a pipeline and save the pipeline with what is left."""
    files = ModelFiles(name=args.model)
    recipe = recipe_of(args, GenerationRecipe.of(files))
    prompts = read_prompts(args.prompts, args.limit) if args.prompts else []
    shown = prompts[: args.samples] or [recipe.prompt or _PROMPT] * bool(args.samples)
    hide_library_bars()
    device = resolve_device(args.device)
    pipe = load_pipeline(files, dtype=resolve_dtype(args.dtype, recipe, device), device=device)
    component, model = prunable_model(pipe)
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
        _sample(Runner(pipe, recipe, prompt=text, seed=n, device=device), models, args.repeat)
        for n, text in enumerate(shown)
    ]
    pipe.register_modules(**models[1])
    masks = _from_the_original(files.folder and files.folder / component / MASKS, pruning)
    save_pruned(args.out, pipe, masks)
    _keep_recipe(files, Path(args.out))
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
    if settings.criterion.needs_prompts:
        raise SparseError(
            f"{args.model} is a model without its pipeline, which --objective {args.objective} runs. "
            f"Give the pipeline's folder, or choose magnitude or random."
        )
    device = resolve_device(args.device)
    folder = Path(args.model).expanduser()
    model = load_model(folder, dtype=args.dtype or "float32", device=device)
    subject = Subject(model=model, structures=structures_of(model, settings.target))
    pruning = prune(subject, settings, None)
    save_pruned(args.out, pruning.model, _from_the_original(folder / MASKS, pruning))
    return PruningResult(
        model=args.model,
        component=type(model).__name__,
        settings=settings,
        pruning=pruning,
        checked=False,
    )


def _call(recipe: GenerationRecipe, settings: PruneSettings) -> dict[str, Any]:
    """Arguments of the pipeline's own call; ecodiff's settings have their own number of steps."""
    call = dict(recipe.call)
    if settings.criterion.name == "ecodiff":
        call.pop("num_inference_steps", None)
    return call


def _sample(
    runner: Runner, models: tuple[Mapping[str, Any], Mapping[str, Any]], repeat: int
) -> Sample:
    """Both models in turns, so that a machine that slows down slows both."""
    runs: tuple[list[TimedRun], list[TimedRun]] = ([], [])
    for model in models:  # what is made at the first call is no part of the time
        runner.pipe.register_modules(**model)
        runner.run(steps=1, decode=False)
    for number in range(repeat):
        for done, model in zip(runs, models, strict=True):
            runner.pipe.register_modules(**model)
            done.append(runner.run(decode=number == 0))
    (before, after) = (Timing(seconds=tuple(run.seconds for run in done)) for done in runs)
    dense, pruned = runs[0][0].frames, runs[1][0].frames
    if dense is None or pruned is None:
        raise SparseError("Nothing was decoded; please report this.")
    return Sample(
        prompt=runner.prompt,
        seed=runner.seed,
        dense=dense,
        pruned=pruned,
        dense_time=before,
        pruned_time=after,
    )


def _from_the_original(earlier: Path | None, pruning: Pruning) -> Masks:
    """The masks of the model that was pruned first, where this one was pruned already."""
    if earlier is None or not earlier.is_file():
        return pruning.masks
    return original_masks(Masks.load(earlier), pruning.masks)


def _keep_recipe(files: ModelFiles, out: Path) -> None:
    """What makes a user type only a prompt goes along."""
    if files.folder is not None and (files.folder / "generation.json").is_file():
        (out / "generation.json").write_bytes((files.folder / "generation.json").read_bytes())


def _teller(args: argparse.Namespace) -> Any:
    def tell(done: int, of: int) -> None:
        if not args.quiet:
            print(f"{args.objective}: {done} of {of}", file=sys.stderr, flush=True)

    return tell
