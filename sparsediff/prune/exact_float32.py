"""float32 as it is meant: no autocast, and no TF32, which convolutions on a GPU have by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Inside, products of float32 are rounded as float32; afterwards as before.

    TF32 and bfloat16 round so coarsely that a wrong cut may not show, or a right one differ.
    """
    backends: Any = torch.backends
    conv, matmul = backends.cudnn.conv, backends.cuda.matmul
    before = torch.get_float32_matmul_precision()
    each = conv.fp32_precision, matmul.fp32_precision
    try:
        conv.fp32_precision = "ieee"
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        conv.fp32_precision, matmul.fp32_precision = each
