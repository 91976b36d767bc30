"""The denoising loss of masks in the pruning table, on rendered samples that no training has seen."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # also where Python is told not to look beside a script

from pruning_masks import Loaded, Row  # noqa: E402
from pruning_samples import rendered  # noqa: E402

from sparsediff.distill.recording.denoiser import Denoiser  # noqa: E402
from sparsediff.prune.evaluation import TIMES, evaluated  # noqa: E402
from sparsediff.prune.learning.chain import chain_of  # noqa: E402
from sparsediff.prune.masks import Masks  # noqa: E402


def loss_of(row: Row, loaded: Loaded, masks: Masks) -> dict[str, Any]:
    """Loss of the masked and of the whole model and the distance of their outputs, see `Evaluation`.

    The noise follows from the row's seed alone, so that all criteria meet the same.
    """
    sample = row.model
    clean, captions = rendered(sample, loaded.pipe)
    chain, conditions = chain_of(
        loaded.pipe, loaded.model, captions, call=sample.call(), steps=sample.steps
    )
    denoiser = Denoiser(model=chain.model, inputs=chain.inputs, levels=chain.levels)
    found = evaluated(denoiser, loaded.structures, {"row": masks}, conditions, clean, seed=row.seed)
    return {**asdict(found["row"]), "samples": len(clean), "times": list(TIMES)}
