"""Block-sparse attention in Triton: forward, backward, block mass and computed patterns.

Importing this package needs no Triton; the kernels' own modules do.
"""

from sparsediff.kernels.triton.backend import TritonBackend

__all__ = ["TritonBackend"]
