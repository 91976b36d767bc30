"""The outlook of whole denoising runs against the pipeline itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sparsediff.compare import generate
from sparsediff.estimate import estimate
from sparsediff.gain.check import CheckedGain
from sparsediff.gain.outlook import outlook
from sparsediff.generation_request import GenerationRequest
from sparsediff.kernels.errors import SparseError
from sparsediff.loading import resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.search import METHODS
from sparsediff.token_size import Size


def check_runs(
    model: str, sizes: Sequence[Size], densities: Sequence[float], *, device: str, repeat: int
) -> Iterator[CheckedGain]:
    """The denoising loop of `model` at each size, dense and with AdaSpa in turns, gate off.

    Raises SparseError where nothing can be timed, and what generating raises.
    """
    for size in sizes:
        for density in densities:
            yield _checked(model, size, density, device, repeat)


def _checked(model: str, size: Size, density: float, device: str, repeat: int) -> CheckedGain:
    files = ModelFiles(name=model)
    method = METHODS["adaspa"](density=density)
    width, height, frames = size
    request = GenerationRequest(
        model=model,
        method=method,
        call={"width": width, "height": height, "num_frames": frames},
        repeat=repeat,
        compare=True,
        device=device,
        gate=False,
    )
    dtype = resolve_dtype(None, request.recipe(), device)
    figures = estimate(files, size=size, density=density, dtype=dtype)
    found = outlook(figures, method, torch.device(device))
    if isinstance(found, str):
        raise SparseError(f"Nothing can be predicted here: {found}.")
    result = generate(request)
    if result.dense is None:
        raise SparseError("No dense run was made.")
    dense, sparse = result.dense.seconds, result.sparse.seconds
    return CheckedGain(
        kind="run",
        shape=f"{model} at {'x'.join(map(str, size))}, {dtype}",
        tokens=figures.tokens,
        density=found.prediction.density,
        steps=figures.steps,
        predicted=1 / found.speedup,
        ratio=min(sparse) / min(dense),
        runs=tuple(one / other for one, other in zip(sparse, dense, strict=True)),
    )
