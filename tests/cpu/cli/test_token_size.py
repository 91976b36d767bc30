"""TokenSize refuses the sizes that the pipelines of diffusers refuse, and names one that fits."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from sparsediff.cli import main
from sparsediff.estimate import estimate
from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles
from sparsediff.token_size import TokenSize

WAN = TokenSize(width=16, height=16, latent_frames=1, frames=4, sides=16)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((65, 64, 5), "width has to be a multiple of 16. The nearest size that fits is 64x64x5"),
        ((64, 90, 5), "height has to be a multiple of 16. The nearest size that fits is 64x96x5"),
        ((64, 64, 6), "frames have to be a multiple of 4, plus 1. The nearest .* is 64x64x5"),
        ((17, 7, 8), "width .* height .* frames .* is 16x16x9"),
    ],
)
def test_sizes_that_do_not_fit(size, words):
    with pytest.raises(SparseError, match=words):
        WAN.check(size, pipeline="WanPipeline")


@pytest.mark.parametrize("size", [(832, 480, 81), (16, 32, 1), (1280, 720, 5)])
def test_sizes_that_fit(size):
    WAN.check(size, pipeline="WanPipeline")


@pytest.mark.parametrize(
    "token",
    [
        WAN,
        TokenSize(width=32, height=16, latent_frames=2, frames=4),
        TokenSize(width=8, height=8, latent_frames=1, frames=8, first=8),
        TokenSize(width=16, height=16, latent_frames=1, frames=1),
    ],
)
def test_a_grid_has_a_size(token):
    for grid in ((1, 2, 3), (5, 30, 52)):
        assert token.grid(token.size(grid)) == grid
        width, height, frames = token.size(grid)
        assert token.grid((width + token.width, height, frames)) != grid


@pytest.mark.parametrize(("token", "step"), [(4, 16), (32, 32), (24, 48)])
def test_the_pipelines_own_multiple_counts_on_top_of_the_token(token, step):
    rule = TokenSize(width=token, height=token, latent_frames=1, frames=1, sides=16)
    rule.check((step, 2 * step, 1), pipeline="p")
    with pytest.raises(SparseError, match=f"width has to be a multiple of {step}"):
        rule.check((token if token != step else 16, step, 1), pipeline="p")


@pytest.mark.parametrize(
    ("pipeline", "model", "size"),
    [
        (diffusers.WanPipeline, "WanTransformer3DModel", (64, 64, 5)),
        (diffusers.WanImageToVideoPipeline, "WanTransformer3DModel", (64, 64, 5)),
        (diffusers.HunyuanVideoPipeline, "HunyuanVideoTransformer3DModel", (64, 64, 5)),
        (diffusers.LTXPipeline, "LTXVideoTransformer3DModel", (64, 64, 9)),
    ],
)
def test_the_multiples_are_those_of_diffusers(config_folder, pipeline, model, size):
    index = {"_class_name": pipeline.__name__, "transformer": ["diffusers", model]}
    files = ModelFiles(name=str(config_folder(index, transformer={"num_layers": 1})))
    estimate(files, size=size)
    step = next(n for n in range(1, 64) if not _refused(pipeline, 64, 64 + n))
    assert step < 64
    with pytest.raises(SparseError, match=f"{pipeline.__name__} cannot make 64x{64 + step // 2}"):
        estimate(files, size=(64, 64 + step // 2, size[2]))


def _refused(pipeline, height, width):
    """Whether the pipeline's own check, which needs no weights, refuses the sides."""
    given = {"prompt": "a", "height": height, "width": width, "image": torch.zeros(1)}
    names = pipeline.check_inputs.__code__.co_varnames[
        1 : pipeline.check_inputs.__code__.co_argcount
    ]
    stub = SimpleNamespace(_callback_tensor_inputs=[], config=SimpleNamespace(boundary_ratio=None))
    try:
        pipeline.check_inputs(stub, **{name: given.get(name) for name in names})
    except ValueError as error:
        return "divisible" in str(error)
    return False


def test_doctor_names_a_size_that_generate_can_make(sample, capsys):
    assert main(["doctor", "--model", sample, "--size", "65x64x6"]) == 1
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith(
        "problem: WanPipeline cannot make 65x64x6: width has to be a multiple"
    )
    assert verdict.endswith("The nearest size that fits is 64x64x7.")
    assert main(["doctor", "--model", sample, "--size", "68x64x5"]) == 1  # whole tokens, but not 16
    assert main(["doctor", "--model", sample, "--size", "64x64x5"]) == 0


def test_a_size_without_a_model(capsys):
    assert main(["doctor", "--size", "64x64x5"]) == 1
    assert "add --model" in capsys.readouterr().err
