"""Rows of the tables: heads, neurons and blocks by the names that an architecture gives them.

Paths are patterns in which ``*`` is one part: ``blocks.*.attn1`` is the attn1 of every block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from sparsediff.kernels.errors import UnsupportedModelError
from sparsediff.prune.structures.module_paths import has, join, matching, outputs
from sparsediff.prune.structures.structure import Count, Cut, SharedNorm, Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Attention heads: rows of the projections, columns of what joins the heads.

    ``attention``: path of the attention inside the match ("" for the match itself). ``rows``,
    ``columns``: paths inside the match; those that a model does not have are left out. ``norms`` run
    over all heads. ``rotary``: see `Structure`.
    """

    path: str
    attention: str = ""
    rows: tuple[str, ...] = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    columns: tuple[str, ...] = ("to_out.0", "to_add_out")
    norms: tuple[str, ...] = ()
    returns: Literal["one", "pair"] = "one"
    rotary: str = ""

    def find(self, model: nn.Module) -> Iterator[Structure]:
        """The heads of every attention that matches."""
        for path in matching(model, self.path):
            attention = join(path, self.attention)
            inner = model.get_submodule(attention)
            heads = int(inner.heads)  # type: ignore[arg-type]
            if not heads:  # pruned before, down to nothing
                continue
            rows = [join(path, name) for name in self.rows if has(model, join(path, name))]
            width = outputs(model, rows[0]) // heads
            for name in rows:
                if outputs(model, name) != heads * width:
                    raise UnsupportedModelError(
                        f"{name} has {outputs(model, name)} outputs for {heads} heads of {width}: "
                        f"heads that share keys cannot be cut one by one."
                    )
            columns = [join(path, name) for name in self.columns if has(model, join(path, name))]
            yield Structure(
                kind="heads",
                path=path,
                units=heads,
                cuts=tuple(
                    [Cut(module=name, side="out", width=width) for name in rows]
                    + [Cut(module=name, side="in", width=width) for name in columns]
                ),
                norms=tuple(
                    SharedNorm(module=join(path, name), width=width)
                    for name in self.norms
                    if has(model, join(path, name))
                ),
                counts=tuple(
                    Count(module=attention, attribute=name, per_unit=per_unit)
                    for name, per_unit in _head_counts(inner, heads, width)
                ),
                attention=attention,
                returns=self.returns,
                rotary=self.rotary,
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Neurons:
    """Hidden neurons of a feed-forward: rows of ``up``, columns of ``down``.

    A gated one (GEGLU, SwiGLU) has twice the rows, values first. ``after``: the path of a layer whose
    outputs come first in what ``down`` reads (Flux's single blocks: the attention). ``count``: the
    attribute of the match that holds their number.
    """

    path: str
    up: str = "net.0.proj"
    down: str = "net.2"
    after: str = ""
    count: str = ""

    def find(self, model: nn.Module) -> Iterator[Structure]:
        """The neurons of every feed-forward that matches."""
        for path in matching(model, self.path):
            up, down = join(path, self.up), join(path, self.down)
            start = outputs(model, join(path, self.after)) if self.after else 0
            units = int(model.get_submodule(down).in_features) - start  # type: ignore[arg-type]
            if not units:  # pruned before, down to nothing
                continue
            rows = outputs(model, up)
            if rows not in (units, 2 * units):
                raise UnsupportedModelError(
                    f"{up} has {rows} outputs, {down} reads {units} of it: needs as many, or twice as "
                    f"many for a gated activation."
                )
            gated = [Cut(module=up, side="out", width=1, start=units)] if rows > units else []
            counts = [Count(module=path, attribute=self.count)] if self.count else []
            yield Structure(
                kind="ffn",
                path=path,
                units=units,
                cuts=(
                    Cut(module=up, side="out", width=1),
                    *gated,
                    Cut(module=down, side="in", width=1, start=start),
                ),
                counts=tuple(counts),
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """Whole blocks of a list, each one unit; ``inputs``: see `Structure`."""

    path: str
    inputs: tuple[str, ...] = ("hidden_states",)

    def find(self, model: nn.Module) -> Iterator[Structure]:
        """Every block that matches."""
        for path in matching(model, self.path):
            yield Structure(kind="blocks", path=path, units=1, inputs=self.inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The rows of one architecture, and the model classes of diffusers that they hold for."""

    name: str
    classes: tuple[str, ...]
    rows: tuple[Heads | Neurons | Blocks, ...]


def _head_counts(attention: Any, heads: int, width: int) -> Iterator[tuple[str, int]]:
    """The attributes in which diffusers' attention classes keep the number of heads."""
    for name in ("heads", "sliceable_head_dim"):
        if getattr(attention, name, None) == heads:
            yield name, 1
    for name in ("inner_dim", "kv_inner_dim", "inner_kv_dim"):
        if getattr(attention, name, None) == heads * width:
            yield name, width
