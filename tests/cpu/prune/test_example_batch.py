"""Models that are there without their pipelines: inputs by their config, on which wrong cuts show."""

from dataclasses import replace

import pytest
import torch
from pruned_models import randomise
from tiny_pipelines import FAMILIES

from sparsediff.kernels.errors import SparseError
from sparsediff.prune import removal
from sparsediff.prune.example_batch import example_batch
from sparsediff.prune.masks import Masks
from sparsediff.prune.removal import remove
from sparsediff.prune.structures import structures_of

# What a table may forget of each: a field of its structures, or rows of a layer.
FORGOTTEN = {
    **dict.fromkeys(("wan", "wan_i2v", "skyreels", "chronoedit"), "norms"),
    **dict.fromkeys(("pixart_sigma", "stable_diffusion", "sdxl", "animatediff"), "counts"),
    **dict.fromkeys(("hunyuan_video", "cogvideox", "flux", "chroma", "sd3"), "to_v"),
    "ltx": "rotary",
}


def _without(one, what):
    if what == "to_v":
        return replace(one, cuts=tuple(c for c in one.cuts if not c.module.endswith(what)))
    return replace(one, **{what: type(getattr(one, what))()})


def _model(name):
    pipe = FAMILIES[name].build()
    return getattr(pipe, "transformer", None) or pipe.unet


@pytest.mark.parametrize("name", FORGOTTEN)
def test_wrong_cuts_show(name, monkeypatch):
    model = _model(name)
    randomise(model)
    batch = example_batch(model)
    assert batch is not None
    structures = structures_of(model)
    masks = Masks(kept={one.key: torch.arange(one.units) >= one.units // 2 for one in structures})
    remove(model, masks, batch=batch)
    wrong = [_without(one, FORGOTTEN[name]) for one in structures]
    assert wrong != structures
    monkeypatch.setattr(removal, "structures_of", lambda *_: wrong)
    with pytest.raises(SparseError, match="nothing was changed"):
        remove(model, masks, batch=batch)


@pytest.mark.parametrize("name", ["wan_vace", "hunyuan_video15"])
def test_inputs_that_do_not_follow_from_the_config_are_not_made_up(name):
    assert example_batch(_model(name)) is None


def test_a_model_that_nothing_could_be_seen_on():
    model = _model("wan")
    assert example_batch(model) is not None
    with torch.no_grad():
        model.proj_out.weight.zero_()
        model.proj_out.bias.zero_()
    assert example_batch(model) is None
    model.proj_out = torch.nn.Linear(1, 1)  # its inputs are others now
    assert example_batch(model) is None
