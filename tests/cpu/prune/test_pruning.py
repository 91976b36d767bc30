"""Pruning as a whole: what cannot be, or would come to nothing, is said before anything is scored."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from pruned_models import case_of
from tiny_pipelines import FAMILIES, wan

from sparsediff.kernels.errors import AlreadyEnabledError, SparseError, UnsupportedModelError
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.criteria.magnitude import Magnitude
from sparsediff.prune.criteria.owl import OWL
from sparsediff.prune.masks import Masks
from sparsediff.prune.proof_batch import proof_batch
from sparsediff.prune.pruning import PruneSettings, prune
from sparsediff.prune.removal import remove
from sparsediff.prune.structures import structures_of
from sparsediff.prune.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Hours(Criterion):
    """A criterion that must not be asked."""

    name: ClassVar[str] = "hours"

    def scores(self, subject):
        pytest.fail("hours were spent before the error")


def _subject(model, kinds=("heads", "ffn")):
    return Subject(model=model, structures=structures_of(model, kinds))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ratio": "0.2"}, "ratio='0.2'"),
        ({"ratio": float("nan")}, "ratio=nan"),
        ({"heads_multiple_of": 0}, "heads_multiple_of=0"),
        ({"least": -1}, "least=-1"),
        ({"scope": "model"}, "scope='model'"),
        ({"criterion": OWL(), "scope": "kind"}, "owl gives each layer its own share; use 'layer'"),
    ],
)
def test_values_out_of_range(values, words):
    with pytest.raises(SparseError, match=words):
        PruneSettings(**{"criterion": Magnitude(), **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ratio": 0.001}, "ratio=0.001 of 96 ffn, 12 heads gives up not a single unit"),
        ({"heads_multiple_of": 4}, "too few to keep at least 1 in multiples of 4"),
        ({"ratio": 0.9, "least": 2}, "Lower the ratio or least"),
    ],
)
def test_what_no_scores_could_make_possible(values, words):
    with pytest.raises(SparseError, match=words):
        prune(_subject(case_of("wan").model), PruneSettings(criterion=Hours(), **values), None)


def test_a_kind_that_the_model_lacks_is_not_passed_over():
    subject = _subject(case_of("chroma").model, ("heads", "blocks"))
    settings = PruneSettings(criterion=Hours(), target=("heads", "blocks"), ratio=0.5)
    with pytest.raises(SparseError, match=r"has no blocks that could be given up.*It has heads"):
        prune(subject, settings, None)


def test_a_model_that_could_not_be_cut_afterwards():
    class Mine(type(case_of("wan").model)):
        pass

    settings = PruneSettings(criterion=Hours())
    mine = Mine(**{k: v for k, v in case_of("wan").model.config.items() if not k.startswith("_")})
    with pytest.raises(UnsupportedModelError, match="Mine is no class of diffusers"):
        prune(_subject(mine), settings, None)
    pipe = wan(layers=1)
    pipe.enable_sparse_attention(gate=False)
    with pytest.raises(AlreadyEnabledError, match=r"disable_sparse_attention\(\) first"):
        prune(_subject(pipe.transformer), settings, None)


def test_a_model_that_lost_all_neurons_of_a_layer_is_pruned_again():
    none = {"ffn/blocks.0.ffn": torch.zeros(32, dtype=torch.bool)}
    once = remove(case_of("wan").model, Masks(kept=none))
    found = prune(
        _subject(once, ("ffn",)), PruneSettings(criterion=Magnitude(), target=("ffn",)), None
    )
    assert [layer["key"] for layer in found.layers()] == ["ffn/blocks.1.ffn", "ffn/blocks.2.ffn"]
    assert str(found.given_up).startswith("13 of 64 ffn (20.3 %)")
    assert found.model.config.pruning["ffn"]["blocks.0.ffn"] == 0


def test_a_pipeline_that_needs_more_than_a_prompt_says_so(capfd):
    pipe = FAMILIES["wan_i2v"].build()
    with pytest.raises(
        SparseError, match=r"'image'.*prune the folder of its WanTransformer3DModel"
    ):
        proof_batch(pipe, pipe.transformer, "a ball", {"num_inference_steps": 2})
    assert not pipe.transformer._forward_pre_hooks
    text = wan(layers=1)
    size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
    told = proof_batch(text, text.transformer, "a ball", size)
    assert told["hidden_states"].shape == (1, 16, 2, 4, 4)
    assert "it/s" not in capfd.readouterr().err
