"""How far a kernel is from float64, in units of the error that its number formats allow.

Every check compares blocks of rows with the formula in float64, computed here from the inputs as they
are rounded, by ``max(|e|_2 / |x|_2, max|e| / max|x|)`` of error e and exact numbers x. The allowance:

    SAFETY * (roundings * u + (sqrt(d) * S + sqrt(n) + 8) * 2^-24)

* ``u``, rounding unit of the dtype (2^-8, 2^-11, 2^-24), once per rounding to it: forward 2 (weights
  before the product with v, output), backward 3 (p and ds, the output inside delta, the gradient),
  mass 0;
* a score sums d products of size up to S = max(sum |q||k| scale + |lse|), with errors of either sign,
  so sqrt(d) of them; exp turns its absolute error into a relative one of the weight;
* a sum over n keys adds sqrt(n) more, exp2 and the divisions a few units.

Errors of random sign cancel in sums over random data exactly as the numbers themselves do, so relative
norms stay; missing one of m key blocks moves a row by about 1/sqrt(m) of its norm, which is above the
allowance of bfloat16 up to 4000 blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.bench.problem import Problem
from sparsediff.kernels import BlockMask
from sparsediff.kernels.block_mask import block_count

SAFETY = 2.0
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
FORWARD, BACKWARD, MASS = 2, 3, 0
DENSE_ROWS = 128  # of a probe where there is no mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A block of query rows of one head: block ``row``, tokens ``first`` to ``end``."""

    head: int
    row: int
    first: int
    end: int


def probes(tokens: int, heads: int, block: int) -> tuple[Probe, ...]:
    """The first block of the first head, one in the middle, the last (perhaps ragged) of the last."""
    rows = block_count(tokens, block)
    places = {(0, 0), (heads // 2, rows // 2), (heads - 1, rows - 1)}
    return tuple(
        Probe(head=head, row=row, first=row * block, end=min(tokens, (row + 1) * block))
        for head, row in sorted(places)
    )


def allowance(problem: Problem, *, roundings: int, keys: int, largest: float) -> float:
    """The relative error that is allowed; see the module."""
    single = math.sqrt(problem.q.shape[3]) * largest + math.sqrt(keys) + 8
    return SAFETY * (roundings * UNIT[problem.q.dtype] + single * UNIT[torch.float32])


def relative_error(found: Tensor, exact: Tensor) -> float:
    """The larger of the errors by norm and by largest number; inf where it is not finite."""
    error = found.double() - exact
    by_norm = error.norm() / exact.norm().clamp(min=1e-300)
    by_size = error.abs().max() / exact.abs().max().clamp(min=1e-300)
    worst = float(torch.maximum(by_norm, by_size))
    return worst if math.isfinite(worst) else math.inf


def kept_keys(mask: BlockMask | None, probe: Probe, k: Tensor) -> Tensor:
    """Which keys of k ``[1, t, h, d]`` the probe's block computes, read from its list: bool ``[t]``."""
    keep = torch.zeros(k.shape[1], dtype=torch.bool, device=k.device)
    if mask is None:
        return ~keep
    head = probe.head if mask.counts.shape[1] > 1 else 0
    count = int(mask.counts[0, head, probe.row])
    if count == mask.kv_blocks:
        return ~keep
    blocks, columns = mask.indices[0, head, probe.row, :count].long(), mask.block_size[1]
    keys = blocks[:, None] * columns + torch.arange(columns, device=k.device)
    keep[keys[keys < k.shape[1]]] = True
    return keep


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A probe's rows in float64: ``weights`` ``[rows, keys]``, ``largest`` as in the module."""

    weights: Tensor
    largest: float


def exact_rows(problem: Problem, probe: Probe, keep: Tensor, lse: Tensor | None = None) -> Rows:
    """Softmax weights of a probe over the kept keys; under a given LSE ``[rows]`` if there is one."""
    rows = problem.q[0, probe.first : probe.end, probe.head].double() * problem.scale
    keys = problem.k[0, :, probe.head].double()
    scores = (rows @ keys.T).masked_fill(~keep, -math.inf)
    shift = scores.logsumexp(dim=-1) if lse is None else lse.double()
    largest = float((rows.abs() @ keys.abs().T).max() + shift.abs().max())
    return Rows(weights=(scores - shift[:, None]).exp(), largest=largest)


def attention_error(out: Tensor, problem: Problem, mask: BlockMask | None) -> float:
    """Error of an output ``[1, s, h, d]`` over its allowance; inf unless all of it is finite."""
    if not bool(out.isfinite().all()):
        return math.inf
    worst = 0.0
    block = DENSE_ROWS if mask is None else mask.block_size[0]
    for probe in probes(problem.tokens, problem.q.shape[2], block):
        keep = kept_keys(mask, probe, problem.k)
        rows = exact_rows(problem, probe, keep)
        exact = rows.weights @ problem.v[0, :, probe.head].double()
        found = out[0, probe.first : probe.end, probe.head]
        allowed = allowance(problem, roundings=FORWARD, keys=int(keep.sum()), largest=rows.largest)
        worst = max(worst, relative_error(found, exact) / allowed)
    return worst


def mass_error(mass: Tensor, problem: Problem, lse: Tensor, block: tuple[int, int]) -> float:
    """Error of a block mass ``[1, h, m, n]`` under `lse` ``[1, h, s]`` over its allowance."""
    if not bool(mass.isfinite().all()):
        return math.inf
    worst, keys = 0.0, problem.k.shape[1]
    for probe in probes(problem.tokens, problem.q.shape[2], block[0]):
        given = lse[0, probe.head, probe.first : probe.end]
        rows = exact_rows(problem, probe, kept_keys(None, probe, problem.k), given)
        by_key = torch.nn.functional.pad(rows.weights.sum(dim=0), (0, -keys % block[1]))
        exact = by_key.view(-1, block[1]).sum(dim=1)
        allowed = allowance(problem, roundings=MASS, keys=block[0] * block[1], largest=rows.largest)
        worst = max(worst, relative_error(mass[0, probe.head, probe.row], exact) / allowed)
    return worst


def selection_error(mask: BlockMask, mass: Tensor, k: Tensor) -> float:
    """0 when every probed row keeps some blocks and the heaviest ``[1, h, m, n]``; inf otherwise."""
    for probe in probes(mask.q_len, mass.shape[1], mask.block_size[0]):
        kept = kept_keys(mask, probe, k)[:: mask.block_size[1]]
        row = mass[0, probe.head, probe.row]
        if not bool(kept.any()):
            return math.inf
        if not bool(kept.all()) and float(row[kept].min()) < float(row[~kept].max()):
            return math.inf
    return 0.0
