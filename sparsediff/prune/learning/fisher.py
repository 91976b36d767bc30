"""Fisher information of the gates: what closing a unit does to the final latents, to second order.

Where all gates are open the masked chain is the dense one, so the gradient of their distance is 0
there. What is left is its curvature: for unit i |J_i|^2, J_i the derivative of the final latents by its
gate. That is also the Fisher information of the gates for latents with noise of variance 1, and the
squared distance that closing the unit alone makes, to first order. For v ~ N(0, I) the mean of
(v . J_i)^2 is |J_i|^2, so that one backward pass gives an estimate for all units. Kwon et al. (arXiv
2204.09656) rank units by the Fisher information of mask variables too, of a task's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Literal

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.training.objective import Samples
from sparsediff.distill.training.sample_order import SampleOrder
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.gates import gated
from sparsediff.prune.learning.chain import Chain
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import KINDS, Structure

Along = Literal["noise", "prompts", "both"]


def fisher_information(
    chain: Chain,
    structures: Sequence[Structure],
    order: SampleOrder,
    *,
    draws: int,
    along: Along = "both",
    tell: Callable[[int], None] = lambda done: None,
) -> Scores:
    """How much every unit matters to the chain: scores whose mean over the units of a kind is 1.

    ``along`` says what counts of the latents: "noise", v ~ N(0, I), all of them alike; "prompts", v is
    what another prompt changes in them from the same noise, so that units count that tell prompts
    apart, however few numbers that moves; "both": one and the other in turns.

    A chain can carry a change of one sample a hundred times as far as of another; every sample's
    estimates are therefore shares of their sum over the units of a kind. ``draws``: at least so many
    samples, which the processes of the order's accelerator divide; ``tell`` is told how many are done.
    Weights must be frozen. Raises SparseError where the gradients are not finite, and where nothing
    depends on any unit of a kind; see `check_along` for what to ask before.
    """
    settings, accelerator = order.settings, order.accelerator
    units = [one.units for one in structures]
    summed = torch.zeros(sum(units))
    at_once = settings.batch * accelerator.num_processes
    for number in range(ceil(draws / at_once)):
        samples = order.samples(*divmod(number, settings.accumulation))
        squares = _squares(chain, structures, samples, order, along)
        summed += torch.cat(_shares(squares, structures), dim=1).sum(0)
        tell(min((number + 1) * at_once, draws))
    summed = accelerator.reduce(summed.to(accelerator.device), reduction="sum")
    if not bool(summed.isfinite().all()):
        raise SparseError(
            "The gradients of the final latents by the gates are not finite. Look for NaN in the "
            "model's weights and activations; float16 overflows, use bfloat16 or float32."
        )
    found = dict(zip([one.key for one in structures], summed.split(units), strict=True))
    return Scores(values=_mean_one(found, structures))


def check_along(along: Along, prompts: Sequence[str]) -> None:
    """Raise SparseError where prompts are to be compared that do not all differ, or a single one."""
    if along == "noise":
        return
    twice = next((one for n, one in enumerate(prompts) if one in prompts[:n]), None)
    if len(prompts) < 2 or twice is not None:
        found = "there is one" if twice is None else f"{twice!r:.80} is there twice"
        raise SparseError(
            f"fisher_along={along!r} compares prompts, and {found}. Give several that all differ, or "
            f"use 'noise'."
        )


def _squares(
    chain: Chain,
    structures: Sequence[Structure],
    samples: Samples,
    order: SampleOrder,
    along: Along,
) -> dict[str, Tensor]:
    """``[b, units]`` by key: squares of gradients by open gates, along each sample's own v."""
    batch, device = len(samples.numbers), order.accelerator.device
    gates = {
        one.key: torch.ones(batch, one.units, device=device, requires_grad=True)
        for one in structures
    }
    draws = Draws([seed_of(order.settings.seed, "fisher", number) for number in samples.numbers])
    noise = draws.normal(torch.empty(batch, *chain.inputs.shape, device=device))
    by_prompt = [along == "prompts" or (along == "both" and n % 2 == 1) for n in samples.numbers]
    with order.accelerator.autocast(), torch.no_grad():
        other = chain.latents(noise, order.other_prompts(samples)) if any(by_prompt) else noise
    with gated(chain.model, structures, gates):  # also while steps are computed again
        with order.accelerator.autocast():
            latents = chain.latents(noise, samples.conditions)
        chosen = torch.tensor(by_prompt, device=device).view(-1, *[1] * (latents.ndim - 1))
        v = torch.where(chosen, latents.detach() - other, draws.normal(latents))
        gradients = torch.autograd.grad(
            (latents * v).sum(), list(gates.values()), materialize_grads=True
        )
    # On the CPU, as not every device has fp64, in which the smallest squares are above 0.
    return {key: one.cpu().double().square() for key, one in zip(gates, gradients, strict=True)}


def _shares(squares: Mapping[str, Tensor], structures: Sequence[Structure]) -> list[Tensor]:
    """In the order of the structures, each sample's squares over their sum of the same kind."""
    sums = {
        kind: sum(squares[one.key].sum(1, keepdim=True) for one in structures if one.kind == kind)
        for kind in {one.kind for one in structures}
    }
    tiny = torch.finfo(torch.float64).tiny  # where nothing depends on any unit of a kind
    return [
        (squares[one.key] / torch.as_tensor(sums[one.kind]).clamp_min(tiny)).float()
        for one in structures
    ]


def _mean_one(found: Mapping[str, Tensor], structures: Sequence[Structure]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for kind in KINDS:
        keys = [one.key for one in structures if one.kind == kind]
        if keys:
            mean = torch.cat([found[key] for key in keys]).mean()
            if mean == 0:
                raise SparseError(
                    f"The final latents do not depend on any of the {kind}: nothing tells them apart. "
                    f"Look whether the model is trained."
                )
            values |= {key: found[key] / mean for key in keys}
    return values
