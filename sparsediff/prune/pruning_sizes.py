"""PruningSizes: how many units each layer of a pruned model has, as its config.json says it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Misfit, Reader, gathered, wrong
from sparsediff.plans.records import listed, record
from sparsediff.plans.values import one_of, whole
from sparsediff.prune.masks import Masks
from sparsediff.prune.original_paths import original_path, split_place
from sparsediff.prune.structures import Structure

SCHEMA = "sparsediff.pruning/1"
_MOST = 10**6  # units of a layer
_LONGEST = 80  # characters of a path in an error


@dataclass(frozen=True, kw_only=True, slots=True)
class PruningSizes:
    """What is left of a stock model, by the paths that it has there; what is not named is whole.

    ``heads`` and ``ffn``: number of units by module; ``blocks``: by list of blocks the places of those
    that are left, ascending. Sizes are all that loading needs: which units they were is in the masks.
    """

    heads: Mapping[str, int] = field(default_factory=dict)
    ffn: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, places in self.blocks.items():
            if list(places) != sorted(set(places)):
                raise SparseError(f"blocks.{path}: needs places in ascending order, each once.")

    def __bool__(self) -> bool:
        return bool(self.heads or self.ffn or self.blocks)

    @classmethod
    def read(cls, value: object) -> PruningSizes:
        """From the entry ``pruning`` of a config; SparseError says what of it is wrong and where."""
        try:
            return _ENTRY(value, "pruning")
        except Misfit as error:
            raise SparseError(
                f"{error} The config of this pruned model is broken, or was written by a newer "
                f"sparsediff."
            ) from None

    @classmethod
    def of(cls, structures: Sequence[Structure], masks: Masks) -> PruningSizes:
        """What masks leave of a model, by its own paths; all its structures are given."""
        cut = {key: kept for key, kept in masks.kept.items() if not bool(kept.all())}
        blocks = {
            path: tuple(place for place, one in places.items() if one.key not in cut)
            for path, places in block_lists(structures).items()
            if any(one.key in cut for one in places.values())
        }
        sizes: dict[str, dict[str, int]] = {"heads": {}, "ffn": {}}
        for one in structures:
            if one.kind in sizes and one.key in cut and is_left(one.path, blocks):
                sizes[one.kind][one.path] = int(cut[one.key].sum())
        return cls(heads=sizes["heads"], ffn=sizes["ffn"], blocks=blocks)

    def after(self, earlier: PruningSizes) -> PruningSizes:
        """These sizes, of a model that `earlier` had made, as sizes of the stock model."""
        removed = earlier.removed
        blocks = dict(earlier.blocks)
        for path, kept in self.blocks.items():
            home = original_path(path, removed)
            before = earlier.blocks.get(home)
            blocks[home] = kept if before is None else tuple(before[place] for place in kept)

        def sizes(first: Mapping[str, int], later: Mapping[str, int]) -> dict[str, int]:
            named = {original_path(path, removed): size for path, size in later.items()}
            return {path: n for path, n in ({**first, **named}).items() if is_left(path, blocks)}

        return PruningSizes(
            heads=sizes(earlier.heads, self.heads),
            ffn=sizes(earlier.ffn, self.ffn),
            blocks=blocks,
        )

    @property
    def removed(self) -> dict[str, set[int]]:
        """By list of blocks, the places of removed ones that come before one that is left."""
        return {
            path: set(range(max(kept, default=-1))) - set(kept)
            for path, kept in self.blocks.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON-ready values."""
        return {
            "schema": SCHEMA,
            "heads": dict(self.heads),
            "ffn": dict(self.ffn),
            "blocks": {path: list(kept) for path, kept in self.blocks.items()},
        }


def block_lists(structures: Sequence[Structure]) -> dict[str, dict[int, Structure]]:
    """The blocks among structures, by their list and their place in it."""
    found: dict[str, dict[int, Structure]] = defaultdict(dict)
    for one in structures:
        if one.kind == "blocks":
            home, place = split_place(one.path)
            found[home][place] = one
    return dict(found)


def is_left(path: str, blocks: Mapping[str, Sequence[int]]) -> bool:
    """Whether a module is in no block that is gone."""
    return not any(
        path.startswith(f"{home}.")
        and int(path.removeprefix(f"{home}.").partition(".")[0]) not in kept
        for home, kept in blocks.items()
    )


def _by_path(inner: Reader[Any]) -> Reader[dict[str, Any]]:
    """An object of any keys whose values `inner` reads."""

    def reader(value: object, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise wrong(value, path, "an object of sizes by the path of a module")
        found = gathered((inner, size, f"{path}.{key[:_LONGEST]}") for key, size in value.items())
        return dict(zip(value, found, strict=True))

    return reader


def _sizes(schema: str, **found: Any) -> PruningSizes:
    return PruningSizes(**found)


_ENTRY = record(
    _sizes,
    {
        "schema": one_of(SCHEMA),
        "heads": _by_path(whole(0, _MOST)),
        "ffn": _by_path(whole(0, _MOST)),
        "blocks": _by_path(listed(whole(0, _MOST))),
    },
    may_lack=("heads", "ffn", "blocks"),
)
