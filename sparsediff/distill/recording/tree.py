"""Trees: a model's keyword arguments, tensors inside dicts, tuples and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
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


def distance(one: Tree, other: Tree) -> float:
    """Sum over the tensors of mean absolute differences; infinite where names or shapes differ."""
    mine, yours = leaves(one), leaves(other)
    if mine.keys() != yours.keys() or any(mine[p].shape != yours[p].shape for p in mine):
        return inf
    return sum(float((mine[p].double() - yours[p].double()).abs().mean()) for p in mine)


def batched_leaves(one: Tree, two: Tree, who: str = "") -> frozenset[str]:
    """Paths of the leaves that have a batch: those twice as long for two samples as for one.

    Raises SparseError, naming `who`, where something else than the first dimension has grown.
    """
    ones, twos = leaves(one), leaves(two)
    found = set()
    for path in ones.keys() | twos.keys():
        a, b = (list(leaf[path].shape) if path in leaf else None for leaf in (ones, twos))
        if a == b:
            continue
        if not a or not b or [2 * a[0], *a[1:]] != b:
            raise SparseError(
                f"{who}tells its model {path[1:]} of shape {a} for one sample and {b} for two; "
                f"training needs the batch in the first dimension."
            )
        found.add(path)
    return frozenset(found)


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
