"""Method: the rule that decides, call by call, which blocks are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Self, TypeVar, cast

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import SparseError
from sparsediff.search.call import AttentionCall
from sparsediff.search.run_work import RunWork, scheduled
from sparsediff.search.schedule import Schedule
from sparsediff.search.selection import mask_density
from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.token_order import RASTER, check_token_order

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Memory:
    """What a method keeps between the calls of one layer and one guidance branch.

    ``mask`` the current pattern; ``lse`` the log-sum-exp of the last exact search, fp32 ``[b, h, s]``;
    ``marks`` the refresh marks passed when the mask was made; ``layer`` is shared with the other
    branches of the layer.
    """

    mask: BlockMask | None = None
    lse: Tensor | None = None
    marks: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    layer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Method(ABC):
    """Base of every method: a frozen configuration and the rule that it stands for.

    ``density`` share of the (query block, key block) pairs of the video computed in a sparse call, in
    (0, 1]; blocks that hold text are always computed on top. ``block_size`` tokens of a block.
    ``warmup`` and ``dense_layers`` as in `Schedule`. ``compensate``: every block left out still takes
    part as one mean key and one mean value (not in the AdaSpa paper; off for parity with it).
    ``token_order``: the order in which video tokens are cut into blocks: "raster", the model's own;
    "tile", 3-D tiles of a block's tokens; "gilbert", a Hilbert curve. Blocks of the last two are
    compact in space and time; moving the tokens there and back costs a copy of q, k, v and the output.

    Raises SparseError for a value out of range, and for unknown fields in `with_options`.
    """

    name: ClassVar[str] = ""

    density: float = 0.2
    block_size: int = 64
    warmup: float = 0.0
    dense_layers: int = 0
    compensate: bool = False
    token_order: str = RASTER

    def __post_init__(self) -> None:
        density = self.density
        if (
            isinstance(density, bool)
            or not isinstance(density, int | float)
            or not 0 < density <= 1
        ):
            raise SparseError(
                f"density={density!r}: needs the share of blocks to compute, in (0, 1]; 0.2 "
                f"computes a fifth, 1.0 is dense."
            )
        block = self.block_size
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise SparseError(f"block_size={block!r}: needs a whole number of tokens, such as 64.")
        if not isinstance(self.compensate, bool):
            raise SparseError(f"compensate={self.compensate!r}: needs True or False.")
        check_token_order(self.token_order)
        self.schedule  # noqa: B018  (its constructor checks warmup, refresh and dense_layers)

    @property
    def schedule(self) -> Schedule:
        """The dense steps and layers this configuration asks for."""
        return Schedule(warmup=self.warmup, dense_layers=self.dense_layers)

    @abstractmethod
    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Compute one call, ``[b, s, h, d]``, reading and updating `memory`."""

    def head_costs(self, layer: int) -> tuple[tuple[float, ...], ...] | None:
        """What each head of a layer costs in each part of the run, in any unit; None when nobody knows.

        Processes that divide the heads of a layer among them balance these.
        """
        return None

    def work(self, steps: int) -> RunWork:
        """What a layer and guidance branch computes in a run of so many steps."""
        return scheduled(self.schedule, steps)

    def computed_density(self, grid: TokenGrid) -> float:
        """Share of all block pairs that a sparse call on `grid` computes, text included."""
        return mask_density(self.density, grid, self.block_size)

    def with_options(self, **options: Any) -> Self:
        """A copy with some fields changed; an unknown field is an error that names the nearest."""
        return changed(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Name and fields, for reports and files."""
        return {"name": self.name, **asdict(self)}


def changed(configuration: T, **options: Any) -> T:
    """A copy of a frozen dataclass with some fields changed.

    Raises SparseError for an unknown field, naming the nearest.
    """
    known = [f.name for f in fields(cast(Any, configuration))]
    for key in options:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SparseError(
                f"{type(configuration).__name__} has no option {key!r}; it has "
                f"{', '.join(known) or 'none'}.{hint}"
            )
    values = {name: getattr(configuration, name) for name in known} | options
    return type(configuration)(**values)
