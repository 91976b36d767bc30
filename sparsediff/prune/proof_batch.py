"""What a model is told in its pipeline's first call: a batch to prove a cut model on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.quiet_pipeline import quiet


class _SeenError(Exception):
    """Ends a pipeline's call once its model was called."""


def proof_batch(
    pipe: Any, model: nn.Module, prompt: str, call: Mapping[str, Any], *, seed: int = 0
) -> dict[str, Any]:
    """The arguments, by name, of the first call that a pipeline makes of its model.

    The pipeline runs up to that call and no further. Raises SparseError where it makes none, or
    cannot be called with these arguments.
    """
    names = tuple(inspect.signature(type(model).forward).parameters)[1:]
    seen: dict[str, Any] = {}

    def look(_model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.update(zip(names, arguments, strict=False), **named)
        raise _SeenError

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with torch.no_grad(), quiet(pipe):
            pipe(prompt=prompt, generator=torch.Generator().manual_seed(seed), **call)
    except _SeenError:
        return seen
    except SparseError:
        raise
    except Exception as error:  # whatever a pipeline makes of arguments that are none of its own
        raise SparseError(
            f"{type(pipe).__name__} cannot be called with {', '.join(('prompt', *call))}, so the "
            f"cut model cannot be checked: {error}. Give what it needs besides; if it starts from a "
            f"picture or a video, prune the folder of its {type(model).__name__} alone."
        ) from error
    finally:
        handle.remove()
    raise SparseError(
        f"{type(pipe).__name__} did not call its {type(model).__name__}, so the cut model cannot be "
        f"checked. Give arguments with which it runs a step."
    )
