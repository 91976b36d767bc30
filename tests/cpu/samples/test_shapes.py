"""The renderer and the judge that reads its clips back."""

import pytest
import torch
from captions import caption, captions_of, labels_of
from classify import classify
from shapes import BACKGROUND_NAMES, CHOICES, COLOR_NAMES, MOTION_NAMES, SHAPES, draw_labels, render


def balanced_labels(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: (torch.arange(count) % choices)[torch.randperm(count, generator=generator)]
        for name, choices in CHOICES.items()
    }


def drawn(seed: int, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return render(draw_labels(count, generator), generator)


def test_the_same_seed_draws_the_same_clips() -> None:
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_clips_have_the_stated_shape_and_range() -> None:
    clips = drawn(1)
    assert clips.shape == (4, 3, 17, 64, 64)
    assert clips.dtype == torch.float32
    assert clips.amin() >= -1
    assert clips.amax() <= 1


def test_the_judge_reads_every_rendered_clip_right() -> None:
    labels = balanced_labels(24)
    clips = render(labels, torch.Generator().manual_seed(5))
    for number, clip in enumerate(clips):
        verdict = classify((clip.transpose(0, 1) + 1) / 2)
        found = (verdict.shape, verdict.color, verdict.motion, verdict.background)
        wanted = tuple(int(labels[name][number]) for name in CHOICES)
        names = (SHAPES, COLOR_NAMES, MOTION_NAMES, BACKGROUND_NAMES)
        assert found == tuple(choice[i] for choice, i in zip(names, wanted, strict=True))
        assert verdict.overlap > 0.9


def test_the_judge_finds_nothing_in_an_empty_video() -> None:
    verdict = classify(torch.zeros(17, 3, 64, 64))
    assert (verdict.shape, verdict.color, verdict.motion) == ("none", "none", "none")


def test_the_judge_tells_a_reversed_motion() -> None:
    labels = {name: torch.zeros(1, dtype=torch.int64) for name in CHOICES}
    clip = render(labels, torch.Generator().manual_seed(5))[0].transpose(0, 1)
    assert classify((clip + 1) / 2).motion == "left"
    assert classify((clip.flip(0) + 1) / 2).motion == "right"


def test_captions_and_labels_are_inverse() -> None:
    labels = draw_labels(50, torch.Generator().manual_seed(0))
    texts = captions_of(labels, torch.ones(50, dtype=torch.bool))
    assert [labels_of(text) for text in texts] == [
        {name: int(labels[name][row]) for name in CHOICES} for row in range(50)
    ]
    with pytest.raises(ValueError, match="background"):
        labels_of(caption(0, 0, 0))
