"""LearnableMasks: gates of some layers, at work in a model whose weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.candidates import GROUP, groups
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks
from sparsediff.prune.semi_structured.relaxation import (
    Draw,
    initial_gates,
    likely_choices,
    soft_mask,
    with_prior,
)


class LearnableMasks:
    """``gates``: by path of a layer, fp32 ``[out · in / 4, 6]``, what is trained.

    ``prior``: masks that the gates lean to, as far as `strength` says. Raises SparseError where the
    prior has no mask of a layer, or one of another shape.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Linear],
        *,
        seed: int,
        prior: SemiStructuredMasks | None = None,
        strength: float = 3.0,
    ) -> None:
        self.layers = dict(layers)
        self.gates = {
            path: nn.Parameter(_begun(path, layer, seed, prior, strength))
            for path, layer in self.layers.items()
        }
        squares = [layer.weight.detach().float().square().sum() for layer in layers.values()]
        self._squares = torch.stack([one.cpu() for one in squares]).sum().item()

    @contextmanager
    def at_work(self, draw: Draw) -> Iterator[None]:
        """Inside, the layers compute with softly masked weights; gradients flow into the gates.

        Each layer's mask is computed again in the backward pass, so that only one is held at a time.
        """
        before = {path: vars(layer).get("forward") for path, layer in self.layers.items()}
        try:
            for path, layer in self.layers.items():
                layer.forward = partial(self._forward, path, draw)  # type: ignore[method-assign]
            yield
        finally:
            for path, layer in self.layers.items():
                _put_back(layer, before[path])

    def kept_share(self, draw: Draw) -> Tensor:
        """The share of squared weights that the drawn masks keep, of all layers together: ``[]``."""
        kept = [
            _recomputed(partial(self._kept_squares, path, draw), gates)
            for path, gates in self.gates.items()
        ]
        return torch.stack([one.to(kept[0].device) for one in kept]).sum() / self._squares

    def export(self) -> SemiStructuredMasks:
        """The most likely mask of every group."""
        return SemiStructuredMasks(
            choices={
                path: likely_choices(gates.detach()).view(len(self.layers[path].weight), -1)
                for path, gates in self.gates.items()
            }
        )

    def _forward(self, path: str, draw: Draw, x: Tensor) -> Tensor:
        def masked(x: Tensor, gates: Tensor) -> Tensor:
            weight = self._masked(path, draw, gates).to(x.dtype)
            return F.linear(x, weight, self.layers[path].bias)

        return _recomputed(masked, x, self.gates[path])

    def _masked(self, path: str, draw: Draw, gates: Tensor) -> Tensor:
        """The layer's weight times its drawn mask: fp32 ``[out, in]``."""
        weight = self.layers[path].weight.detach()
        return weight * soft_mask(gates, path, draw).view(weight.shape)

    def _kept_squares(self, path: str, draw: Draw, gates: Tensor) -> Tensor:
        return self._masked(path, draw, gates).square().sum()


def _begun(
    path: str, layer: nn.Linear, seed: int, prior: SemiStructuredMasks | None, strength: float
) -> Tensor:
    weight = layer.weight.detach()
    gates = initial_gates(path, weight.numel() // GROUP, seed, weight.device)
    if prior is None:
        return gates
    known = prior.choices.get(path)
    expected = list(groups(weight).shape[:2])
    if known is None or list(known.shape) != expected:
        found = "no mask" if known is None else f"choices {list(known.shape)}"
        raise SparseError(f"The prior has {found} for {path}; needs {expected} of them.")
    return with_prior(gates, known.flatten(), strength)


def _recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """What draws in there has a generator of its own: torch's state has no part in it."""
    given = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return cast(Tensor, given)


def _put_back(layer: nn.Module, forward: object) -> None:
    if forward is not None:
        layer.forward = forward  # type: ignore[assignment]
    else:
        vars(layer).pop("forward", None)
