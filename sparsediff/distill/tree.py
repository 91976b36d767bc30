"""Trees: a model's keyword arguments, tensors inside dicts, tuples and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

Tree = Any  # Tensor | dict[str, Tree] | list[Tree] | tuple[Tree, ...] | any other value


def walk(tree: Tree, change: Callable[[str, Tensor], Any], path: str = "") -> Tree:
    """A tree of the same form with every tensor changed; `change` gets its path and the tensor."""
    if isinstance(tree, Tensor):
        return change(path, tree)
    if isinstance(tree, Mapping):
        return {name: walk(value, change, f"{path}/{name}") for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        made = [walk(value, change, f"{path}/{number}") for number, value in enumerate(tree)]
        return tuple(made) if isinstance(tree, tuple) else made
    return tree


def selected(tree: Tree, items: Tensor, batched: frozenset[str]) -> Tree:
    """Some items ``[n]`` of the leaves that have a batch."""
    return walk(tree, lambda path, x: x[items.to(x.device)] if path in batched else x)


def halves(tree: Tree, batched: frozenset[str]) -> tuple[Tree, Tree]:
    """The two halves of a batch: diffusers puts the prediction without the prompt first."""

    def half(second: bool) -> Callable[[str, Tensor], Tensor]:
        return lambda path, x: x.chunk(2)[second] if path in batched else x

    return walk(tree, half(False)), walk(tree, half(True))


def same(one: Tree, other: Tree) -> bool:
    """Whether two trees hold the same numbers."""
    mine, yours = leaves(one), leaves(other)
    return mine.keys() == yours.keys() and all(
        mine[path].shape == yours[path].shape and bool((mine[path] == yours[path]).all())
        for path in mine
    )


def leaves(tree: Tree) -> dict[str, Tensor]:
    """The tensors by path."""
    found: dict[str, Tensor] = {}
    walk(tree, found.setdefault)
    return found


def joined(
    trees: Sequence[Tree], batched: frozenset[str], device: torch.device | str | None = None
) -> Tree:
    """One tree of several: batched leaves one after another, the others as in the first.

    Raises SparseError when the shapes do not fit.
    """
    all_leaves = [leaves(tree) for tree in trees]

    def join(path: str, x: Tensor) -> Tensor:
        parts = [found[path] for found in all_leaves] if path in batched else [x]
        if len({part.shape[1:] for part in parts if part.ndim}) > 1:
            raise SparseError(
                f"The prompts of one batch give conditions of different shapes at {path[1:]}: "
                f"{', '.join(str(list(part.shape)) for part in parts)}. Train with a batch of 1."
            )
        whole = torch.cat(parts) if len(parts) > 1 else x
        return whole if device is None else whole.to(device)

    return walk(trees[0], join)
