"""Settings: what a browser sends is checked, and an address brings a run back."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsediff.kernels.errors import SparseError
from sparsediff.ui.settings import Settings, presets

WHOLE = st.none() | st.integers(8, 500)


@given(
    prompt=st.text(max_size=60),
    method=st.sampled_from(["adaspa", "window", "plan a/b & c"]),
    density=st.floats(0.01, 1),
    warmup=st.floats(0, 0.99),
    seed=st.integers(0, 2**53 - 1),
    steps=WHOLE,
    width=WHOLE,
    height=WHOLE,
    frames=WHOLE,
    gate=st.booleans(),
)
def test_an_address_brings_the_same_settings_back(**values):
    settings = Settings(**values)
    query = dict(parse_qsl(settings.query(), keep_blank_values=True))
    assert Settings.of_query(query) == settings


def test_an_address_names_only_what_differs():
    assert Settings(prompt="a b", density=0.3).query() == "prompt=a+b&density=0.3"


def test_words_of_the_page_in_an_address_are_left():
    assert Settings.of_query({"__theme": "dark", "seed": "7"}) == Settings(seed=7)


def test_whole_numbers_come_as_floats_from_a_browser():
    settings = Settings(steps=20.0, seed=3.0)
    assert (settings.steps, settings.seed) == (20, 3)
    assert isinstance(settings.steps, int)
    assert settings.call == {"num_inference_steps": 20}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"density": 0}, r"density=0: needs a share in \(0, 1\]"),
        ({"density": float("nan")}, "density=nan"),
        ({"density": None}, "density=None: needs a number"),
        ({"warmup": 1}, "warmup=1"),
        ({"steps": 2.5}, "whole number from 1 to 500"),
        ({"steps": 10**9}, "whole number from 1 to 500"),
        ({"seed": None}, "seed=None"),
        ({"seed": -1}, "seed=-1"),
        ({"frames": float("inf")}, "frames=inf"),
        ({"width": True}, "width=True"),
        ({"prompt": "a" * 2001}, "at most 2000 characters"),
        ({"method": ["adaspa"]}, "name of a method"),
        ({"prompt": "a cat \ud83d"}, "character 7 is only half of one"),
        ({"method": "\udc00"}, "method: character 1 is only half"),
        ({"gate": "yes"}, "True or False"),
    ],
)
def test_bad_values_are_named(values, said):
    with pytest.raises(SparseError, match=said):
        Settings(**values)


def test_a_number_of_an_address_that_is_none():
    with pytest.raises(SparseError, match="'many' in the address is not a number"):
        Settings.of_query({"steps": "many"})


def test_a_dense_run_depends_on_nothing_of_the_sparse_one():
    one = Settings(prompt="a", density=0.5, warmup=0.3, method="window", gate=False)
    assert one.dense_key == Settings(prompt="a").dense_key
    for name, value in {"prompt": "b", "seed": 1, "steps": 9, "width": 64, "frames": 9}.items():
        assert Settings(**{"prompt": "a", name: value}).dense_key != one.dense_key


def test_presets_are_valid_and_ordered_by_density():
    densities = [density for density, _ in presets().values()]
    assert densities == sorted(densities, reverse=True)
    for density, warmup in presets().values():
        Settings(density=density, warmup=warmup)
