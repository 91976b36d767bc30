"""`sparsediff doctor` says what is there and what a model needs, from configs alone."""

import json

import pytest

from sparsediff.cli import main
from sparsediff.cli.doctor import small_call
from sparsediff.estimate import estimate
from sparsediff.kernels import backends, ranking, ranking_file
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.ranked_call import RankedCall
from sparsediff.kernels.ranking_file import Rank
from sparsediff.model_files import ModelFiles
from sparsediff.token_size import parse_size

WAN = {
    "_class_name": "WanPipeline",
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
}
WAN_1_3B = {
    "num_layers": 30,
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "ffn_dim": 8960,
    "patch_size": [1, 2, 2],
}


def _json(capsys, *arguments):
    code = main(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_machine(capsys):
    code, found = _json(capsys)
    assert code == 0
    assert found["schema"] == "sparsediff.doctor/1"
    assert found["versions"]["torch"]
    assert tuple(found["backends"]) == backends()
    assert found["backends"]["reference"] == {"usable": True, "reasons": []}
    for state in found["backends"].values():
        assert state["usable"] is not bool(state["reasons"])
    assert found["model"] is None


def test_the_fixed_order(capsys):
    _, found = _json(capsys)
    ranking = found["ranking"]
    assert ranking["order"] == ["cpu", "gather", "flex", "reference"]
    assert (ranking["pinned"], ranking["seconds"], ranking["failures"]) == (None, {}, {})
    assert main(["doctor"]) == 0
    assert "nothing was timed: the fixed order" in capsys.readouterr().out


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A machine on which gather was faster and flex failed."""
    monkeypatch.setenv("SPARSEDIFF_RANKING", "on")
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path))
    monkeypatch.setattr(ranking, "_ranks", {})
    call = small_call("cpu", dtype="bfloat16", head_dim=64)
    rank = Rank(seconds={"cpu": 0.002, "gather": 0.001}, failures={"flex": "wrong result"})
    ranking_file.save(RankedCall.of(call).key, rank, replace=True)


@pytest.mark.usefixtures("measured")
def test_the_measured_order(capsys, monkeypatch, tmp_path):
    _, found = _json(capsys)
    assert found["ranking"] == {
        "call": "bfloat16, head dim 64, blocks of 64",
        "pinned": None,
        "order": ["gather", "cpu", "reference"],
        "seconds": {"cpu": 0.002, "gather": 0.001},
        "failures": {"flex": "wrong result"},
        "file": str(tmp_path / "ranking.json"),
    }
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out.partition("kernel backends")[2]
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    rows = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    assert rows["gather"] == "usable, 1.00 ms"
    assert rows["cpu"] == "usable, 2.00 ms"
    assert rows["flex"] == "left out: wrong result"
    assert rows["timed"].endswith(str(tmp_path / "ranking.json"))
    order = [name for name in rows if name in backends()]
    assert order == ["gather", "cpu", "reference", "triton", "fa4", "flex"]
    monkeypatch.setenv("SPARSEDIFF_BACKEND", "cpu")
    assert main(["doctor"]) == 0
    assert '"auto" is pinned to cpu by SPARSEDIFF_BACKEND' in capsys.readouterr().out


def test_sample_model(capsys, sample):
    code, found = _json(capsys, "--model", sample)
    assert code == 0
    model = found["model"]
    assert (model["tokens"], model["grid"], model["blocks"]) == (2304, [9, 16, 16], 36)
    assert (model["layers"], model["heads"], model["head_dim"]) == (6, 6, 32)
    # 4 n^2 d against 2 n P, by hand
    attention, rest = 6 * 2 * 2304**2 * 192, 2304 * model["token_weights"]
    # Four projections of self-attention, query and output of the other, and the feed-forward layer.
    layer = 6 * 192 * (192 + 1) + 2 * 192 * 768 + 192 + 768
    assert model["token_weights"] == 6 * layer
    assert model["attention_share"] == pytest.approx(attention / (attention + rest))


def test_sample_model_as_text(capsys, sample):
    assert main(["doctor", "--model", sample, "--size", "64x64x9"]) == 0
    text = capsys.readouterr().out
    assert "1,280 = 5 x 16 x 16" in text
    assert "generate" in text.splitlines()[-1]


def test_a_real_size_without_any_weights(config_folder):
    folder = config_folder(WAN, transformer=WAN_1_3B, vae={})
    found = estimate(ModelFiles(name=str(folder)))
    assert (found.width, found.height, found.frames) == (832, 480, 81)  # the pipeline's defaults
    assert found.tokens == 32760
    assert found.parameters["transformer"] == pytest.approx(1.42e9, rel=0.01)
    assert 0.5 < found.attention_share < 0.8


@pytest.mark.parametrize(
    ("pipeline", "model", "vae", "size", "tokens"),
    [
        ("HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel", "AutoencoderKLHunyuanVideo",
         (1280, 720, 129), 33 * 45 * 80 + 256),
        ("LTXPipeline", "LTXVideoTransformer3DModel", "AutoencoderKLLTXVideo",
         (704, 512, 161), 21 * 16 * 22),
        ("FluxPipeline", "FluxTransformer2DModel", None, (1024, 1024, 1), 64 * 64 + 512),
    ],
)  # fmt: skip
def test_other_families(config_folder, pipeline, model, vae, size, tokens):
    index = {"_class_name": pipeline, "transformer": ["diffusers", model]}
    parts = {"transformer": {"num_layers": 2}}
    if vae:
        index["vae"] = ["diffusers", vae]
        parts["vae"] = {}
    found = estimate(ModelFiles(name=str(config_folder(index, **parts))), size=size)
    assert found.tokens == tokens


def test_unsupported_model_is_a_finding_and_not_a_crash(capsys, config_folder):
    folder = config_folder({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]})
    code, found = _json(capsys, "--model", str(folder))
    assert code == 1
    assert found["ok"] is False
    assert "UNet2DModel" in found["problem"]
    assert found["backends"]


def test_too_small_a_size(sample):
    with pytest.raises(SparseError, match="leaves no token"):
        estimate(ModelFiles(name=sample), size=(2, 64, 17))


def test_sizes():
    assert parse_size("832x480x81") == (832, 480, 81)
    assert parse_size("1024X768") == (1024, 768, 1)


@pytest.mark.parametrize("text", ["", "832", "832x480x81x3", "832x0x81", "axb", "-8x8x8", "8.5x8"])
def test_sizes_that_are_none(text, capsys):
    assert main(["doctor", f"--size={text}"]) == 1
    assert "832x480x81" in capsys.readouterr().err
