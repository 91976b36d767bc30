"""`enable_sparse_attention` and its kin as methods on diffusers' pipelines and models.

Importing diffusers takes seconds, so `import sparsediff` does not: classes that are loaded already get
the methods at once, the others when diffusers loads them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

HOMES = {
    "diffusers.pipelines.pipeline_utils": "DiffusionPipeline",
    "diffusers.modular_pipelines.modular_pipeline": "ModularPipeline",
    "diffusers.models.modeling_utils": "ModelMixin",
}
NAMES = ("enable_sparse_attention", "disable_sparse_attention", "sparse_attention_report")


def _method(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        from sparsediff import api

        return getattr(api, name)(self, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"See `sparsediff.{name}`; the pipeline or model is its target."
    return method


def add_methods(module: ModuleType) -> None:
    """Give the class of a loaded diffusers module the methods that it does not have itself."""
    cls = getattr(module, HOMES[module.__name__], None)
    for name in NAMES:
        if cls is not None and not hasattr(cls, name):
            setattr(cls, name, _method(name))


class _AfterLoading(Loader):
    """Loads as the real loader does, then adds the methods."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        add_methods(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _Watcher(MetaPathFinder):
    """Finds nothing itself: it hands the modules of HOMES to `_AfterLoading`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HOMES:
            return None
        sys.meta_path.remove(self)  # the search below must not come back here
        try:
            spec = find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _AfterLoading(spec.loader)
        return spec


def install() -> None:
    """Add the methods to what is loaded, and watch for what is not; safe to call again."""
    for name in HOMES:
        module = sys.modules.get(name)
        if module is not None:
            add_methods(module)
    watching = any(isinstance(finder, _Watcher) for finder in sys.meta_path)
    if not watching and not all(name in sys.modules for name in HOMES):
        sys.meta_path.insert(0, _Watcher())
