"""BladeASA: adaptive block-sparse attention by a sampled probe in every call (arXiv 2508.10774)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.errors import SparseError
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.run_work import RunWork, scheduled
from sparsediff.search.sampled_probe import Probe
from sparsediff.search.selection import RankedBlocks, energy_budgets, keys_per_row
from sparsediff.search.token_grid import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class BladeASA(Method):
    """Video-BLADE's attention: every call looks at a few tokens of each block and chooses anew.

    Nothing is cached, no step is dense and no log-sum-exp is needed, so it suits runs of few steps
    and training. Gradients flow through the computed blocks; the choice is a constant.

    ``density`` is the most that a row of the video may keep. Each keeps the fewest blocks that hold
    ``energy`` of its score, between ``min_keep`` (``density``, where that is less) and ``density``,
    as shares of the video's blocks; the report says what a run computed. ``sample_tokens`` of each
    block are scored, all where it has fewer, drawn for every block, head and layer from ``seed``, and
    for every step of a pipeline's run (see `AttentionCall.probe`). ``global_window``:
    every so many tokens are also one more key for all queries, their mean (ASA_G); None for none.
    ``score``: "softmax", the highest probability between the samples of two blocks, as the paper has
    it; "released", as the authors' code computes it, without the softmax's denominator, so that a
    query of even attention counts as much as a sure one.

    The released code keeps one block fewer than reach ``energy``, and joins the global tokens by
    weights rounded to bfloat16; neither is copied. It draws one random set of places for all blocks
    of a head; here every block has its own, spread over its tokens.

    Raises SparseError as `Method` does, and for ``global_window`` together with ``compensate``, which
    would count twice what is left out.
    """

    name: ClassVar[str] = "blade-asa"

    token_order: str = "gilbert"
    min_keep: float = 0.05
    energy: float = 0.95
    sample_tokens: int = 16
    global_window: int | None = None
    score: str = "softmax"
    seed: int = 0

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        for name in ("min_keep", "energy"):
            share = getattr(self, name)
            number = isinstance(share, int | float) and not isinstance(share, bool)
            if not (number and 0 < share <= 1):
                raise SparseError(
                    f"{name}={share!r}: needs a share in (0, 1], such as 0.05 or 0.95."
                )
        for name in ("sample_tokens", "global_window"):
            tokens = getattr(self, name)
            whole = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1
            if not whole and (name, tokens) != ("global_window", None):
                raise SparseError(f"{name}={tokens!r}: needs a whole number of tokens, such as 16.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise SparseError(f"seed={self.seed!r}: needs a whole number.")
        if self.score not in {"softmax", "released"}:
            raise SparseError(f"score={self.score!r}: needs 'softmax' or 'released'.")
        if self.compensate and self.global_window is not None:
            raise SparseError(
                f"compensate=True and global_window={self.global_window} both stand in for the blocks "
                f"left out; leave one of them off."
            )

    @classmethod
    def released(cls, model: str) -> BladeASA:
        """The settings of the authors' code for "wan" (Wan2.1-1.3B) or "cogvideox" (CogVideoX-5B).

        Their scores, blocks of 128, 32 samples and global tokens; not their two errors. Raises
        SparseError for another model.
        """
        settings = {"wan": (0.17, 30), "cogvideox": (0.10, 15)}
        if model not in settings:
            raise SparseError(f"model={model!r}: settings were released for 'wan' and 'cogvideox'.")
        density, window = settings[model]
        return cls(
            density=density,
            block_size=128,
            sample_tokens=32,
            global_window=window,
            score="released",
        )

    def work(self, steps: int) -> RunWork:
        """Adds the probe of every sparse call, and the global tokens it attends to."""
        plain = scheduled(self.schedule, steps)
        looked_at = min(self.sample_tokens, self.block_size) / self.block_size
        pooled = 0.0 if self.global_window is None else 1 / self.global_window
        return replace(plain, probes=plain.sparse, probed=looked_at**2, pooled=pooled)

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule, else probe, choose and compute."""
        if self.schedule.is_dense(call.step, call.depth):
            return call.dense()
        mask = self._chosen(call)
        return call.sparse(mask, compensate=self.compensate, global_window=self.global_window)

    def _chosen(self, call: AttentionCall) -> BlockMask:
        if call.grid.video_blocks(self.block_size) == 0:  # everything touches text
            return BlockMask.full(
                block_size=self.block_size,
                q_len=call.grid.tokens,
                kv_len=call.grid.tokens,
                device=call.q.device,
            )
        probe = Probe(
            block=self.block_size,
            samples=self.sample_tokens,
            seed=self.seed,
            normalised=self.score == "softmax",
        )
        return self.mask(call.probe(probe), call.grid)

    def mask(self, scores: Tensor, grid: TokenGrid) -> BlockMask:
        """The blocks of every row that hold its energy, and all text, by scores ``[b, h, m, n]``.

        Scores of blocks with text do not count. The grid must have a block of video alone.
        """
        columns = grid.video_blocks(self.block_size)
        lead, trail = grid.text_edges(self.block_size)
        most, least = (keys_per_row(share, columns) for share in (self.density, self.min_keep))
        ranked = RankedBlocks.of(scores, most, grid, self.block_size)
        total = scores[..., lead : scores.shape[-1] - trail].sum(dim=-1)
        return ranked.mask(energy_budgets(ranked.scores, total, self.energy, least))
