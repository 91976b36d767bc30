"""AttentionProfile: where each head's attention lies, by distance and by key column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.errors import SparseError
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.offline.sampled_steps import SampledSteps
from sparsediff.search.schedule import Schedule
from sparsediff.search.token_grid import TokenGrid

_MAP_SIDE = 48  # pixels of the attention map that a report shows


@dataclass(kw_only=True, slots=True)
class AttentionProfile:
    """Sums of the attention mass of one layer over calls, for every bucket (s) and head (h).

    ``diagonals`` float64 ``[s, h, 2 n - 1]``: share of the video's mass at each difference of key and
    query block; ``columns`` ``[s, h, n]``: in each key block; ``maps`` ``[s, h, y, x]``: the whole
    mass in coarse cells. ``calls`` ``[s]``. Their size grows with the blocks, not with their square.
    """

    diagonals: Tensor
    columns: Tensor
    maps: Tensor
    calls: Tensor

    @classmethod
    def empty(cls, buckets: int, heads: int, blocks: int) -> AttentionProfile:
        """Zeros for so many buckets, heads and blocks."""
        side = min(_MAP_SIDE, blocks)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        return cls(
            diagonals=zeros(buckets, heads, 2 * blocks - 1),
            columns=zeros(buckets, heads, blocks),
            maps=zeros(buckets, heads, side, side),
            calls=zeros(buckets),
        )

    def add(self, bucket: int, mass: Tensor, grid: TokenGrid, block: int) -> None:
        """Add one call's block mass ``[b, h, n, n]``; text counts in the map only."""
        whole = mass.float().mean(dim=0)
        total = whole.sum(dim=(-2, -1), keepdim=True)
        side = self.maps.shape[-1]
        coarse = functional.adaptive_avg_pool2d((whole / total)[None], side)[0]
        lead, trail = grid.text_edges(block)
        blocks = whole.shape[-1]
        inside = slice(lead, blocks - trail)
        video = whole[:, inside, inside]
        video = video / video.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-30)
        self.maps[bucket] += coarse.double().cpu()
        self.columns[bucket, :, inside] += video.sum(dim=-2).double().cpu()
        self.diagonals[bucket] += _by_difference(video, blocks).double().cpu()
        self.calls[bucket] += 1

    @classmethod
    def total(cls, profiles: Sequence[AttentionProfile]) -> AttentionProfile:
        """The sum of the profiles of one layer from several runs."""
        return cls(**{name: sum(getattr(p, name) for p in profiles) for name in cls.__slots__})


def _by_difference(video: Tensor, blocks: int) -> Tensor:
    """Sums along the diagonals: ``[h, v, v]`` to ``[h, 2 blocks - 1]``, difference 0 in the middle."""
    number = torch.arange(video.shape[-1], device=video.device)
    place = (number[None, :] - number[:, None] + blocks - 1).reshape(-1)
    sums = torch.zeros(len(video), 2 * blocks - 1, device=video.device, dtype=torch.float64)
    return sums.index_add_(1, place, video.flatten(1).double())


@dataclass(kw_only=True, slots=True)
class ProfileRecord:
    """What `Profiling` fills: the profile of every layer, and the grid they belong to."""

    layers: dict[int, AttentionProfile] = field(default_factory=dict)
    grid: TokenGrid | None = None

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, to be written to a file."""
        return {
            f"{layer}.{name}": getattr(profile, name)
            for layer, profile in sorted(self.layers.items())
            for name in AttentionProfile.__slots__
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor], grid: TokenGrid | None = None) -> ProfileRecord:
        """The record that `state` was made of."""
        numbers = sorted({int(name.partition(".")[0]) for name in state})
        return cls(
            layers={
                layer: AttentionProfile(
                    **{name: state[f"{layer}.{name}"] for name in AttentionProfile.__slots__}
                )
                for layer in numbers
            },
            grid=grid,
        )

    @classmethod
    def total(cls, records: Sequence[ProfileRecord]) -> ProfileRecord:
        """The sum over several runs of the same grid, in their order."""
        layers = {
            layer: AttentionProfile.total([record.layers[layer] for record in records])
            for layer in records[0].layers
        }
        return cls(layers=layers, grid=records[0].grid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiling(Method):
    """Run dense and note in `record` where every head's attention lies, at the sampled steps."""

    name: ClassVar[str] = "profiling"

    density: float = 1.0
    steps: SampledSteps = field(default_factory=SampledSteps)
    record: ProfileRecord = field(default_factory=ProfileRecord, repr=False)
    query_stride: int = 1

    @property
    def schedule(self) -> Schedule:
        """The warm-up that the plan will have."""
        return Schedule(warmup=self.steps.starts[0], dense_layers=self.dense_layers)

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense; at a sampled step also the mass. Raises SparseError for calls on several grids."""
        record = self.record
        record.grid = record.grid or call.grid
        if call.grid != record.grid:
            raise SparseError(
                f"A plan is for one token grid; attention of this model is on {record.grid} and on "
                f"{call.grid}. Its layers see several sequences, or its text is as long as the prompt "
                f"and another length for the negative one. Use a method that needs no plan, such as "
                f"adaspa."
            )
        if self.schedule.is_dense(call.step, call.depth):
            return call.dense()
        bucket, profile = self.steps.bucket(call.step), record.layers.get(call.layer)
        # The second model of Wan 2.2 may begin after the sampled steps of a bucket.
        seen = profile is not None and bool(profile.calls[bucket] > 0)
        if seen and not self.steps.is_sampled(call.step):
            return call.dense()
        out, lse = call.dense_with_lse()
        mass = call.mass(lse, self.block_size, query_stride=self.query_stride)
        if profile is None:
            shape = (len(self.steps.starts), mass.shape[1], mass.shape[-1])
            profile = record.layers[call.layer] = AttentionProfile.empty(*shape)
        profile.add(bucket, mass, call.grid, self.block_size)
        return out
