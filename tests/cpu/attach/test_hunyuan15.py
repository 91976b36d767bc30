"""HunyuanVideo 1.5, whose own processor makes a mask over pairs of tokens: here it is one over keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_pipelines import FAMILIES
from torch.utils._python_dispatch import TorchDispatchMode

FAMILY = FAMILIES["hunyuan_video15"]
VIDEO = 4 * 4 * 4
TOKENS = VIDEO + FAMILY.text
NOISE = 1e-4  # as for every family: four steps of float32 sampling through a random network


class Shapes(TorchDispatchMode):
    """Shapes of the bool tensors that operators make."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.bool:
            self.seen.add(tuple(out.shape))
        return out

    @property
    def pairs(self) -> set[tuple[int, ...]]:
        """Those over pairs of tokens of the whole sequence."""
        return {shape for shape in self.seen if shape[-2:] == (TOKENS, TOKENS)}


@pytest.fixture
def pipe() -> Iterator[Any]:
    pipe = FAMILY.build()
    yield pipe
    pipe.disable_sparse_attention()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def masks_given(session: Any) -> list[tuple[int, ...]]:
    """Shapes of the masks that reach the session, as they come in."""
    given: list[tuple[int, ...]] = []
    attend = session.attend

    def spy(*args: Any, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        given.append(tuple(attention_mask.shape))
        return attend(*args, attention_mask=attention_mask, **kwargs)

    session.attend = spy
    return given


def test_no_mask_over_pairs_is_made(pipe: Any) -> None:
    with Shapes() as theirs:
        FAMILY.run(pipe)
    assert theirs.pairs  # what diffusers' own processor makes in every layer
    session = pipe.enable_sparse_attention("window", density=0.3, block_size=8, gate=False)
    given = masks_given(session)
    with Shapes() as ours:
        FAMILY.run(pipe)
    assert ours.pairs == set()
    assert given == [(1, 1, 1, TOKENS)] * FAMILY.calls(4)
    assert session.report().fallbacks == {}


def test_dense_steps_make_the_same_video(pipe: Any) -> None:
    """The mask over keys differs for padding only, which no video token sees."""
    dense = FAMILY.run(pipe)
    session = pipe.enable_sparse_attention("window", density=0.3, warmup=0.9, gate=False)
    assert relative(FAMILY.run(pipe), dense) < NOISE
    report = session.report()
    assert (report.sparse_calls, report.dense_calls) == (0, FAMILY.calls(4))


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_prompts_of_different_length_in_a_batch(pipe: Any, density: float) -> None:
    """Each row has as many valid text tokens as its own prompt, and none of the other's."""
    long, short = 'a "red" circle and more', "dusk"
    more = {"height": 16, "width": 16, "num_frames": 7, "output_type": "latent"}
    noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    session = pipe.enable_sparse_attention(
        density=density, block_size=8, warmup=0.25, head_budgets=False, gate=False
    )
    alone = FAMILY.run(pipe, seed=1, prompt=short)
    given = masks_given(session)
    both = pipe(
        prompt=[long, short],
        negative_prompt=["blurry"] * 2,
        generator=noise,
        num_inference_steps=4,
        **more,
    )[0]
    report = session.report()
    assert set(given) == {(2, 1, 1, TOKENS)}
    assert report.fallbacks == {}
    assert report.sparse_calls == FAMILY.calls(4) * 3 // 4
    assert relative(both[1:], alone) < 10 * NOISE
