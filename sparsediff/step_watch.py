"""Somebody is told of every denoising step of a run before it begins, and may end the run there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from sparsediff.models import denoisers
from sparsediff.progress import Progress
from sparsediff.root_hooks import timestep_of
from sparsediff.search import Step

Watcher = Callable[[Step], None]


class RunStopped(Exception):
    """Raised by a watcher to end a run; the pipeline can be called again afterwards."""


@contextmanager
def watched(pipe: Any, watcher: Watcher | None) -> Iterator[None]:
    """Inside the with-block `watcher` gets the Step of every forward of the pipeline's denoisers.

    Guidance makes several forwards of one step, each of which is told. Whatever `watcher` raises ends
    the run at once: unlike diffusers' own interrupt, nothing is decoded, and pipelines without
    callbacks stop too.
    """
    with ExitStack() as hooks:
        if watcher is not None:
            progress = Progress(lambda: getattr(pipe, "scheduler", None))
            for model in denoisers(pipe).values():
                hooks.callback(_add_hook(model, progress, watcher))
        yield


def _add_hook(model: nn.Module, progress: Progress, watcher: Watcher) -> Callable[[], None]:
    names = tuple(inspect.signature(type(model).forward).parameters)[1:]

    def tell(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        inputs = dict(zip(names, args, strict=False)) | dict(kwargs)
        progress.forward_begins()
        progress.at_layer(0, timestep_of(inputs))
        watcher(progress.step)

    return model.register_forward_pre_hook(tell, with_kwargs=True).remove
