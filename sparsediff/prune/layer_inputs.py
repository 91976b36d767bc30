"""LayerInputs: how large the inputs of layers were, and the sums that they are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

_NUMBERS = 2**22  # of an input that are squared at a time, in fp32


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerInputs:
    """``squares``: by layer path, the weighted sum over tokens of each feature's square, fp64 ``[in]``.

    ``tokens``: the sum of the weights. Nothing else is kept of what was seen.
    """

    squares: Mapping[str, Tensor]
    tokens: Mapping[str, float]

    def norms(self, path: str) -> Tensor:
        """Root mean square of each input feature of a layer, fp32 ``[in]``.

        Within a layer it is Wanda's L2 norm but for a factor; a layer that sees more tokens, such as
        the first level of a UNet, has no larger ones.
        """
        return (self.squares[path] / self.tokens[path]).sqrt().float()


class InputSums:
    """Adds up squares of inputs, on the device where they come: one vector for each layer."""

    def __init__(self) -> None:
        self._squares: dict[str, Tensor] = {}
        self._tokens: dict[str, float] = {}

    def add(self, path: str, x: Tensor, weight: float) -> None:
        """Add an input ``[..., in]`` of a layer, each token with this weight."""
        rows = x.detach().reshape(-1, x.shape[-1])
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        if path not in self._squares:
            self._squares[path] = torch.zeros(x.shape[-1], dtype=exact, device=x.device)
        total = self._squares[path]
        for part in rows.split(max(1, _NUMBERS // x.shape[-1])):
            total += weight * part.float().square().sum(0).to(total)
        self._tokens[path] = self._tokens.get(path, 0.0) + weight * len(rows)

    def result(self, paths: Collection[str]) -> LayerInputs:
        """The sums of these layers; SparseError for one that was never called, or saw NaN."""
        if missing := sorted(path for path in paths if not self._tokens.get(path)):
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise SparseError(
                f"The pipeline never called {', '.join(missing[:3])}{more}: nothing is known of their "
                f"inputs. Prune the model that the pipeline runs, or choose magnitude."
            )
        squares = {path: self._squares[path].cpu().double() for path in paths}
        for path, value in squares.items():
            if not bool(value.isfinite().all()):
                raise SparseError(
                    f"Inputs of {path} are not finite, so they say nothing of its weights. float16 "
                    f"overflows: run the pipeline in bfloat16 or float32."
                )
        return LayerInputs(squares=squares, tokens={path: self._tokens[path] for path in paths})
