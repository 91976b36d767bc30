"""The step and branch that every call sees, in each way that pipelines run their denoisers.

Guiders of modular pipelines are in test_guiders.py, schedulers in test_schedulers.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seen_calls import SeenCalls
from tiny_pipelines import FAMILIES

OPTIONS: dict[str, Any] = {"density": 0.4, "block_size": 8, "warmup": 0.25, "gate": False}
TWO, ONE = ("cond", "uncond"), ("cond_uncond",)


def forwards(steps: int, branches: tuple[str, ...]) -> list[tuple[int, str]]:
    """Every branch in every step."""
    return [(step, branch) for step in range(steps) for branch in branches]


def watched(family: str, **options: Any) -> tuple[Any, SeenCalls]:
    pipe = FAMILIES[family].build()
    return pipe, SeenCalls(pipe.enable_sparse_attention(**OPTIONS | options))


@pytest.mark.parametrize(
    ("family", "call", "branches", "rows"),
    [
        pytest.param("wan", {}, TWO, 1, id="two named calls with their step"),
        pytest.param("wan", {"guidance_scale": 1.0}, TWO[:1], 1, id="no guidance"),
        pytest.param("wan", {"num_videos_per_prompt": 2}, TWO, 2, id="two videos"),
        pytest.param("wan_i2v", {}, TWO, 1, id="image to video"),
        pytest.param("wan_ti2v", {}, TWO, 1, id="a timestep for each token"),
        pytest.param("ltx", {}, ONE, 2, id="one batch"),
        pytest.param("ltx", {"num_videos_per_prompt": 2}, ONE, 4, id="one batch, two videos"),
        pytest.param("ltx2", {}, ONE, 2, id="a copied audio scheduler"),
        pytest.param("mochi", {}, ONE, 1, id="one call for each row"),
        pytest.param(
            "flux", {"true_cfg_scale": 3.0, "negative_prompt": "b"}, TWO, 1, id="true cfg"
        ),
        pytest.param("skyreels_forcing", {}, TWO, 1, id="schedulers copied for each frame"),
        pytest.param("lumina2", {}, ("0", "1"), 1, id="two unnamed calls"),
        pytest.param("pixart_alpha", {}, ("0",), 2, id="one unnamed batch"),
    ],
)
def test_guidance(family: str, call: dict[str, Any], branches: tuple[str, ...], rows: int) -> None:
    pipe, seen = watched(family)
    FAMILIES[family].run(pipe, **call)
    assert seen.forwards == forwards(4, branches)
    assert (seen.dense_steps, seen.sparse_steps, seen.totals) == ([0], [1, 2, 3], {4})
    assert {call.rows for call in seen.calls} == {rows}
    assert seen.session.report().fallbacks == {}
    assert seen.session.report().sparse_calls == 3 * seen.session.report().dense_calls


@pytest.mark.parametrize(("steps", "dense"), [(1, [0]), (2, [0]), (8, [0, 1])])
def test_number_of_steps_changes_between_runs(steps: int, dense: list[int]) -> None:
    pipe, seen = watched("wan")
    for run, count in enumerate((4, steps, steps), start=1):
        seen.clear()
        FAMILIES["wan"].run(pipe, steps=count)
        assert {call.run for call in seen.calls} == {run}
        assert (seen.forwards, seen.totals) == (forwards(count, TWO), {count})
    assert seen.dense_steps == dense
    assert seen.sparse_steps == list(range(len(dense), steps))


@pytest.mark.parametrize("second", [3.0, 1.0])
def test_two_experts_share_the_steps_of_the_pipeline(second: float) -> None:
    pipe, seen = watched("wan22")
    FAMILIES["wan22"].run(pipe, steps=8, guidance_scale_2=second)
    experts: dict[str, set[int]] = {"transformer": set(), "transformer_2": set()}
    for call in seen.calls:
        experts[seen.session.layers[call.layer].split(".")[0]].add(call.step)
    high, low = sorted(experts["transformer"]), sorted(experts["transformer_2"])
    assert high + low == list(range(8)), "one takes over where the other ends"
    assert min(len(high), len(low)) >= 2
    assert seen.forwards == forwards(8, TWO)
    assert seen.dense_steps == [0, 1], "the second expert does not warm up again"
    assert seen.totals == {8}


def stop_guidance(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """What people do to save the second half of guidance; one batch becomes half as large."""
    if step == 3:
        pipe._guidance_scale = 1.0
        for name in list(tensors):
            if name != "latents":
                tensors[name] = tensors[name].chunk(2)[-1]
    return tensors


def test_guidance_ends_in_the_middle_of_one_batch() -> None:
    pipe, seen = watched("sdxl")
    text = ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]
    FAMILIES["sdxl"].run(
        pipe,
        steps=8,
        callback_on_step_end=stop_guidance,
        callback_on_step_end_tensor_inputs=text,
    )
    assert seen.forwards == forwards(8, ("0",))
    assert {(call.step < 4, call.rows) for call in seen.calls} == {(True, 2), (False, 1)}
    assert (seen.dense_steps, seen.sparse_steps) == ([0, 1], [2, 3, 4, 5, 6, 7])
    assert seen.session.report().fallbacks == {}
    masks = seen.session.masks().values()
    assert {mask.counts.shape[0] for mask in masks} == {1}, "patterns of another batch are not used"


def test_guidance_ends_in_the_middle_of_two_calls() -> None:
    pipe, seen = watched("wan")
    FAMILIES["wan"].run(pipe, steps=8, callback_on_step_end=stop_guidance)
    assert seen.forwards == forwards(4, TWO) + [(step, "cond") for step in (4, 5, 6, 7)]
    assert (seen.dense_steps, seen.sparse_steps) == ([0, 1], [2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize("family", ["wan", "wan_i2v", "cogvideox", "lumina2", "skyreels_forcing"])
def test_a_run_after_one_that_was_stopped(family: str) -> None:
    """A stopped pipeline never says that its run is over."""
    pipe, seen = watched(family)
    whole = FAMILIES[family].run(pipe)

    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise KeyboardInterrupt
        return tensors

    with pytest.raises(KeyboardInterrupt):
        FAMILIES[family].run(pipe, callback_on_step_end=stop)
    seen.clear()
    assert torch.equal(FAMILIES[family].run(pipe), whole)
    assert {call.run for call in seen.calls} == {3}
    assert (seen.dense_steps, seen.sparse_steps) == ([0], [1, 2, 3])


def test_a_run_that_is_interrupted_by_its_flag() -> None:
    pipe, seen = watched("wan")
    whole = FAMILIES["wan"].run(pipe)
    seen.clear()

    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return tensors

    FAMILIES["wan"].run(pipe, callback_on_step_end=stop)
    assert seen.forwards == forwards(2, TWO)
    assert seen.totals == {4}
    report = seen.session.report()
    assert (report.dense_calls, report.sparse_calls) == (6, 6)
    seen.clear()
    assert torch.equal(FAMILIES["wan"].run(pipe), whole)
    assert (seen.dense_steps, seen.sparse_steps) == ([0], [1, 2, 3])


def test_every_piece_of_a_long_video_is_a_run() -> None:
    """SkyReels goes through the same timesteps once for each piece, without setting them again."""
    pipe, seen = watched("skyreels_forcing")
    FAMILIES["skyreels_forcing"].run(pipe, num_frames=17, base_num_frames=9, overlap_history=5)
    assert seen.forwards == 3 * forwards(4, TWO)
    assert seen.dense_steps == [0]
    assert {call.run for call in seen.calls} == {1, 2, 3}


def test_frames_that_start_one_after_another() -> None:
    """The highest timestep stays where it is until the last frame starts; the mean does not."""
    pipe, seen = watched("skyreels_forcing")
    FAMILIES["skyreels_forcing"].run(pipe, num_frames=17, ar_step=2)
    steps = max(call.step for call in seen.calls) + 1
    assert steps > 4
    assert seen.forwards == forwards(steps, TWO)
    assert seen.dense_steps == [0]
