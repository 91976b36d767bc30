"""The files of decoder masks: JSON for their configuration, safetensors for their weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsediff.distill.student.whole_folder import whole_folder
from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Reader, read, shown
from sparsediff.plans.records import record
from sparsediff.plans.strict_json import parse
from sparsediff.plans.values import one_of
from sparsediff.prune.mask_unet.mask_config import MASK_CONFIG, MaskConfig
from sparsediff.prune.tensor_file import TensorFile

SCHEMA = "sparsediff.mask-unet/1"
CONFIG, WEIGHTS = "mask_unet.json", "mask_unet.safetensors"


def save_masks(folder: Path, config: MaskConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write both files, all or nothing; SparseError where the folder cannot take them."""
    from safetensors.torch import save_file

    with whole_folder(folder, last=CONFIG, old=(WEIGHTS,)) as scratch:
        plain = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        save_file(plain, scratch / WEIGHTS, metadata={"schema": SCHEMA})
        text = json.dumps({"schema": SCHEMA, **asdict(config)}, indent=2, allow_nan=False)
        (scratch / CONFIG).write_text(f"{text}\n", encoding="utf-8")


def load_masks(folder: Path) -> tuple[MaskConfig, dict[str, Tensor]]:
    """What `save_masks` wrote; SparseError names the file that is something else."""
    path = folder / CONFIG
    try:
        values = parse(path.read_bytes(), source=str(path))
    except OSError as error:
        raise SparseError(
            f"{folder} holds no decoder masks that can be read: {error}. Needs {CONFIG} and "
            f"{WEIGHTS}, as DecoderMasks.save_pretrained writes them."
        ) from error
    found = values.get("schema") if isinstance(values, dict) else None
    if found != SCHEMA:
        raise SparseError(f"{path} has the schema {shown(found)}; needs {SCHEMA!r}.")
    tensors = TensorFile.read(folder / WEIGHTS, schema=SCHEMA, what="decoder masks").tensors
    for name, x in tensors.items():
        if not x.is_floating_point() or not bool(x.isfinite().all()):
            raise SparseError(
                f"{folder / WEIGHTS}: {name} holds values that are no finite numbers."
            )
    return read(_DOCUMENT, values, source=str(path)), dict(tensors)


def _config(schema: str, **values: Any) -> MaskConfig:
    return MaskConfig(**values)


_DOCUMENT: Reader[MaskConfig] = record(
    _config, {"schema": one_of(SCHEMA), **MASK_CONFIG}, may_lack=()
)
