"""The flags of `sparsediff generate` become the fields they name."""

import pytest

from sparsediff.cli import parser
from sparsediff.cli.generate import _request
from sparsediff.cli.generate_arguments import call_arguments, method_options
from sparsediff.search import AdaSpa, BladeASA


def _parsed(*flags):
    return parser().parse_args(["generate", "model", "a circle", *flags])


def test_nothing_given_changes_nothing():
    assert method_options(_parsed()) == {}
    assert call_arguments(_parsed()) == {}
    assert _request(_parsed()).method == AdaSpa()


@pytest.mark.parametrize(
    ("text", "refresh"),
    [("0.6,0.8", (0.6, 0.8)), ("0.5", (0.5,)), ("0.4, 0.7", (0.4, 0.7)), ("none", ())],
)
def test_refresh(text, refresh):
    assert _request(_parsed("--refresh", text)).method == AdaSpa(refresh=refresh)


def test_a_longer_warmup_with_its_own_marks():
    method = _request(_parsed("--warmup", "0.7", "--refresh", "0.8")).method
    assert (method.warmup, method.refresh) == (0.7, (0.8,))


def test_flags_of_one_method():
    args = _parsed("--method", "blade-asa", "--energy", "0.9", "--global-window", "30")
    assert _request(args).method == BladeASA(energy=0.9, global_window=30)


def test_every_other_flag():
    args = _parsed(
        "--density", "0.3", "--block-size", "32", "--no-compensate", "--steps", "4", "--height", "16",
        "--width", "32", "--frames", "5", "--guidance", "2", "--negative", "",
    )  # fmt: skip
    assert method_options(args) == {"density": 0.3, "block_size": 32, "compensate": False}
    assert call_arguments(args) == {
        "num_inference_steps": 4,
        "height": 16,
        "width": 32,
        "num_frames": 5,
        "guidance_scale": 2.0,
        "negative_prompt": "",
    }
