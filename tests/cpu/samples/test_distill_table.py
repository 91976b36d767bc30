"""The table of the distilled model: features, what is seen in videos, the page and what it claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import distill_table
import pytest
import torch
from distill_distance import kernel_distance
from distill_features import FEATURES, FeatureNetwork, feature_network, features_of, trained
from distill_measures import diversity, look, rendered
from distill_page import page
from distill_rows import requests_of
from distill_verdict import verdict
from safetensors.torch import save_file
from torch import Tensor

PROMPTS = [prompt for prompt, _ in requests_of(diversity=False)][:6]


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return trained(steps=3, batch=8)


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return rendered(PROMPTS, 1)


def test_the_network_follows_from_its_seed(network: FeatureNetwork, clips: Tensor) -> None:
    again = trained(steps=3, batch=8)
    features = features_of(network, clips)
    assert features.shape == (len(PROMPTS), FEATURES)
    assert torch.equal(features, features_of(again, clips))
    assert not torch.equal(features, features_of(trained(steps=4, batch=8), clips))
    alone = features_of(network, clips[:2])
    torch.testing.assert_close(features[:2], alone, msg="statistics of the batch took part")
    assert sum(weight.numel() for weight in network.parameters()) < 500_000


def test_the_network_is_kept(network: FeatureNetwork, clips: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    kept = feature_network(path)
    assert torch.equal(features_of(kept, clips), features_of(network, clips))


def test_other_captions_are_far(network: FeatureNetwork) -> None:
    """Against two sets of the same captions, whose distance is 0 but for chance."""
    one = rendered(["a red circle moving right on a dark background"] * 12, 1)
    again = rendered(["a red circle moving right on a dark background"] * 12, 2)
    other = rendered(["a blue square moving left on a light background"] * 12, 3)
    features = [features_of(network, some) for some in (one, again, other)]
    same, apart = kernel_distance(*features[:2]), kernel_distance(features[2], features[1])
    assert abs(same.value) < 3 * same.error
    assert apart.value > 3 * apart.error


def test_seeds_that_change_nothing_have_no_diversity(
    network: FeatureNetwork, clips: Tensor
) -> None:
    same = diversity(network, clips[:2].repeat_interleave(3, dim=0), 3)
    # Features of one video differ with its place in a batch by rounding alone.
    assert same["features"]["value"] < 1e-5
    assert same["pixels"] == {"value": 0, "error": 0}
    drawn = rendered([prompt for prompt in PROMPTS[:2] for _ in range(3)], 4)
    varied = diversity(network, drawn, 3)
    assert varied["features"]["value"] > 1e-3, "a hundred times the rounding; it is hardly trained"
    assert varied["pixels"]["value"] > 0.01


def test_a_look_at_rendered_clips(network: FeatureNetwork, clips: Tensor) -> None:
    seen = look(network, clips, PROMPTS)
    assert seen.scores()["all"] == 1
    assert seen.right() == [1] * len(PROMPTS)
    assert seen.flicker(still=True) == 0
    assert seen.flicker(still=False) > 0.001
    turned = look(network, clips.roll(1, dims=0), PROMPTS)
    assert sum(turned.right()) == 0
    with pytest.raises(ValueError, match="Found 2 videos; needed 6"):
        look(network, clips[:2], PROMPTS)


def written(folder: Path, clips: Tensor) -> None:
    """Rows as they are while they are made: some videos, one with facts, some of them timed."""
    rows = {
        "teacher-50": clips,
        "sparse-student": clips,
        "dense-student-sparse": clips.roll(1, dims=0),
    }
    for number, (name, videos) in enumerate(rows.items()):
        save_file(
            {"videos": videos[: len(PROMPTS) - number].contiguous()}, folder / f"{name}.safetensors"
        )
    run = {"calls_per_video": 8, "density": 0.25, "sparse_density": 0.25, "method": {"name": "x"}}
    facts = {"command": "python here.py", "runs": {"0": run, "4": run | {"density": 0.27}}}
    (folder / "sparse-student.json").write_text(json.dumps(facts))
    slow, fast = ([{"whole": s, "loop": s - 1, "calls": c}] * 3 for s, c in ((91, 100), (10, 8)))
    timed = {
        "command": "python time.py",
        "machine": {"device": "a machine", "load": 0.1},
        "rows": {"teacher-50": slow, "sparse-student": fast},
    }
    (folder / "times.json").write_text(json.dumps(timed))


def test_the_page(
    network: FeatureNetwork, clips: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, clips)
    monkeypatch.setattr(distill_table, "held_out_accuracy", lambda _: {"shape": 0.5})
    with pytest.raises(ValueError, match="one for each prompt"):
        distill_table.document(
            tmp_path, network, distill_table.videos_of(tmp_path, partial=False), "c"
        )
    videos = distill_table.videos_of(tmp_path, partial=True)
    found = distill_table.document(tmp_path, network, videos, "python table.py")
    found = json.loads(json.dumps(found))
    assert found["prompts"] == 4
    row = found["rows"]["sparse-student"]
    assert (row["all"], row["distance"]["value"], row["density"]) == (1, 0, 0.26)
    assert row["times"]["whole"] == {"median": 10, "iqr": 0, "times_as_fast": 9.1}
    assert found["rows"]["dense-student-sparse"]["all"] == 0
    against = {pair["others"]: pair for pair in found["pairs"]}["dense-student-sparse"]
    assert against["points"] == {"value": 100, "error": 0}
    assert against["right"] == {"wins": 4, "losses": 0, "ties": 0, "p": 0.125}
    assert found["rows"]["rendered"]["diversity"]["pixels"]["value"] > 0.01
    text = page(found, image="picture.png")
    assert "| sparse student (BLADE) | 8 | 0.26 | 100.0 |" in text
    assert "| sparse student (BLADE) | 10.00 (0.00) | 9.1x | 9.00 (0.00) | 10.0x |" in text
    assert "**9.1 times as fast**" in text
    assert "python here.py\npython samples/tables/distill_rows.py dense-student-sparse\n" in text
    picture = distill_table.picture(videos)
    assert picture.size == (210 + 9 * 64, 3 * 68)


def test_there_is_nothing_without_the_teacher(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no teacher-50\.safetensors"):
        distill_table.videos_of(tmp_path, partial=True)


def claimed(points: float, right: tuple[int, int, float], nearer: tuple[float, float]) -> str:
    """The verdict for these figures of the sparse student."""
    test = dict(zip(("wins", "losses", "p"), right, strict=True))
    gain = {"value": points, "error": 6.0}
    pair: dict[str, Any] = {"points": gain, "right": test, "overlap": {**test, "p": 1.0}}
    near = dict(zip(("value", "error"), nearer, strict=True))
    others = ("teacher-50", "dense-student-sparse")
    pairs = [{"ours": "sparse-student", "others": name, **pair, "nearer": near} for name in others]
    rows = {"sparse-student": {"all": 0.9}, "teacher-50": {"all": 0.95}}
    return verdict({"rows": rows, "pairs": pairs})


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((-5.0, (9, 1, 0.02), (0.01, 0.01)), ["**-5.0 ± 6.0 points**, within", "was worth it**"]),
        ((-5.1, (5, 5, 1.0), (0.01, 0.01)), ["**not** within", "do not show"]),
        ((0.0, (1, 9, 0.02), (0.01, 0.01)), ["was not worth it**, against"]),
        ((0.0, (5, 5, 1.0), (-0.03, 0.01)), ["was not worth it**, against"]),
        ((0.0, (9, 1, 0.02), (-0.03, 0.01)), ["depends on the measure"]),
        ((0.0, (9, 1, 0.0), (0.03, 0.01)), ["(p < 0.0001)", "was worth it**"]),
    ],
)
def test_claims_follow_from_the_figures(figures: Any, said: list[str]) -> None:
    text = claimed(*figures)
    assert all(words in text for words in said), text
    assert verdict({"rows": {}, "pairs": []}) == "There is no sparse student among the rows yet."
