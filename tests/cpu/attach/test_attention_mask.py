"""Attention masks: what hides keys from every query alike runs sparse and exact, the rest dense."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsediff
from sparsediff.attention_mask import HOLE, OTHER, KeyPadding, key_padding
from sparsediff.search import AdaSpa, Method, Window
from sparsediff.session import Session

TEXT, IMAGE = 13, 56  # tokens; 7 x 8 image tokens
TOKENS = TEXT + IMAGE
LENGTHS = ((5, 13), (9, 9), (1, 12))  # valid text of the two rows of a batch
FIRST, LAST = (1, 7, 8, TEXT, 0), (1, 7, 8, 0, TEXT)  # layouts


def keys(layout: tuple[int, ...], lengths: tuple[int, ...]) -> Tensor:
    """Valid keys of a batch with text of these lengths: bool ``[b, s]``."""
    text = torch.arange(TEXT) < torch.tensor(lengths)[:, None]
    image = torch.ones(len(lengths), IMAGE, dtype=torch.bool)
    return torch.cat([text, image] if layout is FIRST else [image, text], dim=1)


def outer(valid: Tensor) -> Tensor:
    return valid[:, None, None, :] & valid[:, None, :, None]


def additive(mask: Tensor, number: float = -10000.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, number)


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "keys": lambda x: x[:, None, None],
    "rows": lambda x: x,
    "repeated": lambda x: x[:, None, None].expand(-1, -1, TOKENS, -1),
    "product": outer,
    "additive": lambda x: additive(x[:, None, None]),
    "additive by head": lambda x: additive(x[:, None, None]).expand(-1, 3, -1, -1),
    "additive rows": lambda x: additive(x[:, None]),
    "infinite": lambda x: additive(x[:, None, None], -torch.inf),
    "rounded": lambda x: additive(x[:, None, None], dtype=torch.bfloat16),
    "least": lambda x: additive(x[:, None, None], torch.finfo(torch.float16).min, torch.float16),
    "additive product": lambda x: additive(outer(x)),
}


class Call:
    """One attention call in a session of its own; dense is plain attention in float64."""

    def __init__(
        self,
        layout: tuple[int, ...],
        mask: Tensor,
        method: type[Method] = Window,
        **options: Any,
    ) -> None:
        noise = torch.Generator().manual_seed(3)
        self.qkv = [
            torch.randn(2, TOKENS, 3, 8, generator=noise, dtype=torch.float64) for _ in "qkv"
        ]
        self.layout, self.mask = layout, mask
        self.session = Session(
            method=method(block_size=8, **options),
            backend="auto",
            layers=["one"],
            depths=[0],
            gate=False,
        )
        self.session.enabled = True

    def dense(self, visible: Tensor | None = None, bias: Tensor | float = 0.0) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in self.qkv)
        scores = q @ k.mT * q.shape[-1] ** -0.5 + bias
        if visible is not None:
            scores = scores.masked_fill(~visible, -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2)

    def run(self) -> Tensor:
        return self.session.attend(
            0,
            *self.qkv,
            attention_mask=self.mask,
            timestep=torch.tensor(500.0),
            layout=self.layout,
            scale=self.qkv[0].shape[-1] ** -0.5,
            dense=self.dense,
        )


# float64: sums of 69 terms of size one in another order.
EXACT = {"atol": 1e-13, "rtol": 1e-12}


@pytest.mark.parametrize("order", ["raster", "tile", "gilbert"])
@pytest.mark.parametrize("layout", [FIRST, LAST], ids=["text first", "text last"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_padded_text_is_exact(
    shape: str, lengths: tuple[int, ...], layout: tuple[int, ...], order: str
) -> None:
    """Rows of the batch with text of different lengths, at full density, against float64."""
    valid = keys(layout, lengths)
    found = Call(layout, SHAPES[shape](valid), density=1.0, token_order=order)
    out = found.run()
    report = found.session.report()
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (1, 0, {})
    expected = found.dense(valid[:, None, None])
    assert torch.isfinite(out).all(), "rows of padding too"
    torch.testing.assert_close(out[valid], expected[valid], **EXACT)


@pytest.mark.parametrize("method", [Window, AdaSpa])
@pytest.mark.parametrize("order", ["raster", "tile", "gilbert"])
@pytest.mark.parametrize("layout", [FIRST, LAST], ids=["text first", "text last"])
@pytest.mark.parametrize("lengths", [*LENGTHS, (5, TEXT)], ids=str)
def test_padding_that_is_only_weighed_less(
    lengths: tuple[int, ...], layout: tuple[int, ...], order: str, method: type[Method]
) -> None:
    """Chroma's: ones and zeros are added to the scores, so padding counts, for padded queries too."""
    mask = outer(keys(layout, lengths)).double()
    found = Call(layout, mask, method, density=1.0, warmup=0.0, token_order=order)
    out = found.run()
    report = found.session.report()
    assert (report.sparse_calls, report.dense_calls, report.fallbacks) == (1, 0, {})
    expected = found.dense(bias=mask)
    # The two parts are joined in float32.
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=1e-6)
    assert float((expected - found.dense()).abs().max()) > 0.01
    hidden = found.dense(keys(layout, lengths)[:, None, None])
    assert float((expected - hidden).abs().max()) > 0.01


@pytest.mark.parametrize("layout", [FIRST, LAST], ids=["text first", "text last"])
def test_padding_hides_keys_at_low_density(layout: tuple[int, ...]) -> None:
    """What padding holds must not matter: other numbers there give the same bits elsewhere."""
    valid = keys(layout, (5, 12))
    found = Call(layout, valid[:, None, None], density=0.3)
    out = found.run()
    assert found.session.report().sparse_calls == 1
    for x in found.qkv:
        x[~valid] = 7.0
    again = found.run()
    assert found.session.report().fallbacks == {}
    assert torch.equal(out[valid], again[valid])
    assert not torch.allclose(out[valid], found.dense(valid[:, None, None])[valid], **EXACT)


@pytest.mark.parametrize("layout", [FIRST, LAST], ids=["text first", "text last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_that_hides_nothing_moves_nothing(shape: str, layout: tuple[int, ...]) -> None:
    valid = keys(layout, (TEXT, TEXT))
    found = Call(layout, SHAPES[shape](valid), density=0.5)
    out = found.run()
    assert found.session.report().fallbacks == {}
    plain = Call(layout, SHAPES[shape](valid), density=0.5)
    plain.mask = None  # type: ignore[assignment]
    assert torch.equal(out, plain.run())


@pytest.mark.parametrize("added", [1.0, -3.0])
def test_a_mask_that_adds_the_same_to_every_score_moves_nothing(added: float) -> None:
    found = Call(FIRST, torch.full((1, 1, TOKENS, TOKENS), added, dtype=torch.float64), density=0.5)
    out = found.run()
    assert found.session.report().fallbacks == {}
    found.mask = None  # type: ignore[assignment]
    assert torch.equal(out, found.run())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_without_keys_is_an_error(shape: str) -> None:
    valid = keys(FIRST, (5, 12))
    valid[1] = False
    found = Call(FIRST, SHAPES[shape](valid), density=1.0)
    with pytest.raises(sparsediff.SparseError, match=f"hides all {TOKENS} keys of a batch item"):
        found.run()
    assert not found.session.enabled


def _hole(place: int) -> Tensor:
    valid = keys(FIRST, (TEXT, TEXT))
    valid[0, place] = False
    return valid


BLOCKS = torch.arange(TOKENS) // 10
OTHERS: dict[str, tuple[Tensor, str]] = {
    "a hole in the video": (_hole(TEXT + 20)[:, None, None], HOLE),
    "a hole in the text": (_hole(3)[:, None, None], HOLE),
    "a hole, as a product": (outer(_hole(TEXT + 20)), HOLE),
    "weights": (torch.linspace(0, 1, TOKENS, dtype=torch.float64)[None, None, None], OTHER),
    "zeros and ones": (keys(FIRST, (5, 12)).double()[:, None, None], OTHER),
    "causal": (torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(), OTHER),
    "blocks": (BLOCKS[:, None] == BLOCKS, OTHER),
    "one query differs": (torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool), OTHER),
    "one head differs": (torch.ones(2, 3, 1, TOKENS, dtype=torch.bool), OTHER),
    "nan": (torch.full((TOKENS,), torch.nan), OTHER),
}
WEIGHED = outer(keys(FIRST, (5, 12))).double()
OTHERS["weighed, and one hidden"] = (WEIGHED.clone(), OTHER)
OTHERS["weighed, and one hidden"][0][0, 0, 40, 3] = -10000.0
OTHERS["weighed, a padded row too"] = (WEIGHED.clone(), OTHER)
OTHERS["weighed, a padded row too"][0][0, 0, 12] = WEIGHED[0, 0, 40]
OTHERS["weighed by two"] = (2 * WEIGHED, OTHER)
OTHERS["one query differs"][0][0, 0, 30, 2] = False
OTHERS["one head differs"][0][1, 2, 0, -1] = False


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("order", ["raster", "gilbert"])
def test_other_masks_run_dense(kind: str, order: str) -> None:
    mask, reason = OTHERS[kind]
    found = Call(FIRST, mask, density=0.5, token_order=order)
    assert torch.equal(found.run(), found.dense())
    report = found.session.report()
    assert (report.sparse_calls, report.fallbacks) == (0, {reason: 1})


def test_a_hidden_end_of_the_video_needs_the_models_order() -> None:
    """In raster order it is the end of the sequence; along a curve it is a hole."""
    valid = torch.ones(2, TOKENS, dtype=torch.bool)
    valid[1, -3:] = False
    layout = (1, 3, 23, 0, 0)
    found = Call(layout, valid, density=1.0)
    torch.testing.assert_close(found.run(), found.dense(valid[:, None, None]), **EXACT)
    assert found.session.report().sparse_calls == 1
    moved = Call(layout, valid, density=1.0, token_order="gilbert")
    moved.run()
    assert moved.session.report().fallbacks == {HOLE: 1}


def test_large_products_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsediff.mask_reading._CHUNK", 2 * TOKENS * 5)
    mask = outer(keys(LAST, (5, 12)))
    shape = {"batch": 2, "heads": 3, "tokens": TOKENS}
    found = key_padding(mask, **shape)
    assert isinstance(found, KeyPadding)
    assert found.lengths.tolist() == [IMAGE + 5, IMAGE + 12]
    mask[1, 0, 40, 0] = False
    assert key_padding(mask, **shape) == OTHER


def test_a_padded_query_that_sees_something_else() -> None:
    """It would have an output of its own, which nobody may change."""
    valid = keys(LAST, (5, 12))
    mask = outer(valid) | torch.eye(TOKENS, dtype=torch.bool)
    assert key_padding(mask, batch=2, heads=3, tokens=TOKENS) == OTHER


@pytest.mark.parametrize(
    "shape", [(2, 68), (3, 1, 1, 69), (2, 1, 7, 69), (1, 1, 1, 1, 69), (2, 70)]
)
def test_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    broken = torch.ones(shape, dtype=torch.bool)
    with pytest.raises(sparsediff.SparseError, match=re.escape(str(shape))):
        key_padding(broken, batch=2, heads=3, tokens=TOKENS)


def test_integers_are_no_mask() -> None:
    """torch refuses them too; zeros may mean hidden or added."""
    assert key_padding(torch.zeros(1, TOKENS).long(), batch=1, heads=3, tokens=TOKENS) == OTHER


def test_one_look_serves_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def counted(mask: Tensor, **shape: Any) -> Any:
        looks.append(1)
        return key_padding(mask, **shape)

    monkeypatch.setattr("sparsediff.admission.key_padding", counted)
    found = Call(FIRST, keys(FIRST, (5, 12))[:, None, None], density=0.5)
    found.session.layers, found.session.depths = ["one", "two"], [0, 1]
    for layer in (0, 1):
        found.session.attend(
            layer,
            *found.qkv,
            attention_mask=found.mask,
            timestep=torch.tensor(500.0),
            layout=FIRST,
            scale=1.0,
            dense=found.dense,
        )
    assert found.session.report().sparse_calls == 2
    assert len(looks) == 1
