"""What recording refuses is said for whoever asked: masks are learnt from it as students are."""

import re
from pathlib import Path

import pytest
from tiny_pipelines import wan

from sparsediff.distill import noise, recording
from sparsediff.distill.student import scheduler_kinds
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.learning.chain import chain_of


class _Other:
    """Stands in for a scheduler of no known kind."""

    config: dict = {}  # noqa: RUF012


def test_masks_are_not_told_of_students():
    pipe = wan(layers=1)
    size = {"height": 32, "width": 32, "num_frames": 5}
    with pytest.raises(SparseError, match="is given image; training is for text to video or image"):
        chain_of(pipe, pipe.transformer, ["a ball"], call={**size, "image": 1}, steps=2)
    told = str(scheduler_kinds.unsupported(_Other()))
    assert told.startswith("Nothing can be trained for the steps of _Other. Supported: ")


def test_no_error_of_recording_speaks_of_distillation():
    files = [*Path(recording.__file__).parent.glob("*.py"), Path(noise.__file__)]
    assert len(files) > 5
    for file in files:
        for text in re.findall(r'^ +f?"[^"]*"$', file.read_text(), flags=re.MULTILINE):
            assert "istill" not in text, file
