"""Going on from an earlier student, or from embeddings: of the same model and settings, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_pipelines import wan
from tiny_training import CALL, LAYERS, settings_of, training_of, weights_of

from sparsediff.distill.recording.condition_recorder import ConditionRecorder
from sparsediff.distill.student.student_card import CARD
from sparsediff.distill.training.earlier_student import check_earlier
from sparsediff.distill.training.setup import encoded
from sparsediff.kernels.errors import PlanMismatchError, SparseError


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A student that was trained for one iteration, and its weights."""
    out = tmp_path_factory.mktemp("earlier") / "student"
    training = training_of(out, iterations=1, average=0.0, warmup_iterations=0)
    training.run()
    training.save()
    return out, weights_of(training)


def test_student_and_fake_begin_as_the_earlier_student(
    earlier: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, weights = earlier
    fresh = weights_of(training_of(tmp_path / "fresh"))
    found = weights_of(training_of(tmp_path / "next", start_from=folder, average=0.0))
    for name, value in found.items():
        role = name.partition(".")[0]
        wanted = weights[name.replace("fake.", "student.", 1).replace(".fake.", ".student.")]
        assert torch.equal(value, wanted), (role, name)
    assert any(not torch.equal(fresh[name], value) for name, value in found.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_alpha": 4.0}, r"rank 2 and alpha 2\.0, not 2 and 4\.0.*--lora-alpha 2\.0"),
        ({"lora_rank": 4}, "rank 2 and alpha 2.0, not 4"),
        ({"lora_rank": 0}, "rank 2 and alpha 2.0, not 0"),
    ],
)
def test_another_rank_or_alpha_is_refused(
    earlier: tuple[Path, dict[str, torch.Tensor]], changes: dict[str, float], words: str
) -> None:
    with pytest.raises(SparseError, match=words):
        check_earlier(earlier[0], settings_of(**changes))


def test_another_model_and_other_weights(
    earlier: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "student"
    folder.mkdir()
    for path in earlier[0].iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    card = json.loads((folder / CARD).read_text())
    card["base"]["weights"] = "0" * 64
    (folder / CARD).write_text(json.dumps(card))
    training_of(tmp_path / "warned", start_from=folder)
    assert "trained on other weights" in caplog.text
    card["base"]["components"][0]["model"] = "OtherTransformer"
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(PlanMismatchError, match="trained on another model"):
        training_of(tmp_path / "refused", start_from=folder)
    (folder / CARD).unlink()
    with pytest.raises(SparseError, match=f"holds no {CARD}"):
        check_earlier(folder, settings_of())


def test_embeddings_without_the_side_that_guidance_needs_are_refused() -> None:
    """A teacher of guidance 4 would silently have none."""
    pipe = wan(layers=LAYERS)
    recorder = ConditionRecorder(pipe, pipe.transformer, CALL, steps=2)
    guided = recorder.record("a red circle")
    assert guided.negative is not None
    with pytest.raises(
        SparseError, match="made without a negative side, which this guidance needs"
    ):
        encoded(recorder, [replace(guided, negative=None)])
    alone = ConditionRecorder(pipe, pipe.transformer, CALL, steps=2, guidance=1.0)
    with pytest.raises(SparseError, match="made with a negative side, which this guidance has not"):
        encoded(alone, [guided])
