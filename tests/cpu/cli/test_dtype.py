"""The dtype of a run that names none: the recipe's, unless the CPU computes it at a crawl."""

import pytest

from sparsediff import loading
from sparsediff.generation import GenerationRecipe
from sparsediff.loading import resolve_dtype

BFLOAT16 = GenerationRecipe(dtype="bfloat16")


@pytest.mark.parametrize(
    ("features", "device", "asked", "expected"),
    [
        (["avx2", "fma"], "cpu", None, "float32"),
        (["avx2", "fma"], "cpu", "bfloat16", "bfloat16"),
        (["avx2", "fma"], "cuda", None, "bfloat16"),
        (["avx2", "avx512f", "avx512_bf16"], "cpu", None, "bfloat16"),
        (["asimd"], "cpu", None, "bfloat16"),
    ],
)
def test_float32_where_bfloat16_has_no_instructions(monkeypatch, features, device, asked, expected):
    monkeypatch.setattr(loading, "cpu_features", lambda: features)
    assert resolve_dtype(asked, BFLOAT16, device) == expected


def test_other_dtypes_are_kept(monkeypatch):
    monkeypatch.setattr(loading, "cpu_features", lambda: ["avx2"])
    assert resolve_dtype(None, GenerationRecipe(dtype="float16"), "cpu") == "float16"
