"""Real images to fine-tune on, from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_images(folder: Path, *, width: int, height: int) -> Tensor:
    """All images of a folder ``[n, 3, height, width]`` in -1..1, by name; the middle of other shapes.

    They are kept in memory. Raises SparseError when there are none, or one cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SparseError(f"{folder} holds no images ({', '.join(SUFFIXES)}).")
    images = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                fitted = ImageOps.fit(picture.convert("RGB"), (width, height))
        except (OSError, UnidentifiedImageError) as error:
            raise SparseError(f"{path} could not be read as an image: {error}") from error
        images.append(torch.from_numpy(np.array(fitted)).permute(2, 0, 1))
    return torch.stack(images).float() / 127.5 - 1
