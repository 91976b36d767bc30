"""SearchRequest: a search that a user asks for, checked before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsediff.environment import versions
from sparsediff.estimate import estimate
from sparsediff.generation import GenerationRecipe
from sparsediff.kernels import backends
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import resolve_device, resolve_dtype
from sparsediff.model_configs import CallDefaults
from sparsediff.model_files import ModelFiles
from sparsediff.pattern_search.budget import Budget
from sparsediff.pattern_search.options import MIDDLE, SearchOptions
from sparsediff.pattern_search.run_folder import RunFolder
from sparsediff.pattern_search.settings import PACKAGES, SearchSettings
from sparsediff.token_size import Size

_SHOWN = 4  # differences in one message


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """``settings`` of a search, its ``folder``, the ``device`` to run on, and whether it goes on.

    Made by `new` or `resume`.
    """

    settings: SearchSettings
    folder: RunFolder
    device: str
    resumed: bool = False

    @classmethod
    def new(
        cls,
        model: str,
        prompts: Sequence[str],
        budget: Budget,
        out: str | Path,
        *,
        size: Size | None = None,
        steps: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        options: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> SearchRequest:
        """A new search into the folder `out`; `others` are fields of SearchSettings.

        Without `size` (width, height, frames) and `steps` those of generation.json, else the
        pipeline's. Raises SparseError for anything that cannot work; nothing is written or loaded.
        """
        folder = RunFolder(path=Path(out).expanduser())
        folder.check_new()
        files = ModelFiles(name=model)
        files.denoisers()
        recipe = GenerationRecipe.of(files).with_call(num_inference_steps=steps)
        recipe = recipe.with_call(**_size_call(files, recipe, size))
        found = resolve_device(device)
        settings = SearchSettings(
            model=model,
            prompts=tuple(prompts),
            budget=budget,
            options=SearchOptions.from_dict({"density": _around(budget), **(options or {})}),
            call=recipe.call,
            autocast=recipe.autocast,
            dtype=resolve_dtype(dtype, recipe, found),
            device=found.partition(":")[0],
            versions=_versions(),
            **others,
        )
        _check_backend(settings.backend)
        return cls(settings=settings, folder=folder, device=found)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        *,
        size: Size | None = None,
        steps: int | None = None,
        device: str | None = None,
        options: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> SearchRequest:
        """Go on with the search in `folder`; what is given besides has to be what it was begun with.

        Only the name of the model, whose weights are compared, and the budget may be others: the
        finished units do not depend on them. Raises SparseError that names what differs.
        """
        run = RunFolder(path=Path(folder).expanduser())
        saved = run.read_settings()
        changes = {key: value for key, value in given.items() if value is not None}
        files = ModelFiles(name=changes.get("model", saved.model))
        files.denoisers()
        recipe = GenerationRecipe(call=saved.call).with_call(num_inference_steps=steps)
        recipe = recipe.with_call(**_size_call(files, recipe, size))
        found = resolve_device(device or saved.device)
        now = replace(
            saved,
            call=recipe.call,
            device=found.partition(":")[0],
            options=SearchOptions.from_dict({**saved.options.to_dict(), **(options or {})}),
            versions=_versions(),
            **changes,
        )
        differences = saved.differences(now)
        if differences:
            raise different(run, differences)
        return cls(settings=now, folder=run, device=found, resumed=True)


def different(folder: RunFolder, differences: Sequence[str]) -> SparseError:
    """The error of a search that would go on as another one."""
    more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return SparseError(
        f"The search in {folder.path} was begun with other settings: "
        f"{'; '.join(differences[:_SHOWN])}{more}. Give the same ones, or begin a new search with "
        f"another --out."
    )


def _around(budget: Budget) -> float:
    """The density that the candidates lie around."""
    return min(budget.value, 0.95) if budget.kind == "density" else MIDDLE


def _size_call(files: ModelFiles, recipe: GenerationRecipe, size: Size | None) -> dict[str, Any]:
    """The pipeline's arguments of a size that fits the model."""
    if size is None:
        return {}
    estimate(files, size=size)
    call = dict(zip(("width", "height", "num_frames"), size, strict=True))
    if "num_frames" not in CallDefaults.of(files, recipe).defaults:  # makes images
        del call["num_frames"]
    return call


def _versions() -> dict[str, str]:
    found = versions()
    return {name: found[name] for name in PACKAGES if name in found}


def _check_backend(backend: str) -> None:
    if backend not in ("auto", *backends()):
        raise SparseError(
            f"Unknown backend {backend!r}; choose one of auto, {', '.join(backends())}."
        )
