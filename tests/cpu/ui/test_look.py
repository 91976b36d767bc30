"""Look inside: the map of heads, a measurement that changes no figure, and what one head shows."""

import re

import pytest
import torch
from toy_folder import BRANCHES, LAYERS, PROMPT

from sparsediff.inside import LAST
from sparsediff.root_hooks import session_on
from sparsediff.ui.desk import Desk
from sparsediff.ui.insides import Insides, Opened
from sparsediff.ui.look import look
from sparsediff.ui.measuring import measure, shown_head
from sparsediff.ui.settings import Settings

HEADS, STEPS = 2, 4
VALUES = {"prompt": PROMPT, "method": "window", "density": 0.4, "warmup": 0.3, "gate": False}


@pytest.fixture
def desk(comparison, tmp_path):
    return Desk(comparison, tmp_path)


def compared(desk, **changes):
    *_, last = desk.compare("page", VALUES | changes)
    assert last.compared is not None, last.status
    return last


def measured(desk, opened, **asked):
    *news, last = measure(desk, "page", {"token": opened.token, **asked})
    assert last.opened is not None, last.status
    return news, last


def test_a_measurement_is_the_run_that_was_compared(desk):
    run = compared(desk)
    before, points = len(desk.comparison.dense_runs), run.points
    news, last = measured(desk, run.opened, layer=1, head=1)
    assert any("Measuring: step 3 of 4" in shown.status for shown in news)
    assert (last.compared, last.clips, last.points) == (None, None, ())
    assert len(desk.comparison.dense_runs) == before
    assert desk.history.add(run.compared) == points
    inside = last.opened.inside
    assert inside.report.to_dict() == run.compared.result.report.to_dict()
    assert inside.report.sparse_calls == 3 * LAYERS * BRANCHES  # the first of four steps is dense
    assert len(inside.views) == LAYERS * STEPS
    names = [str(row["name"]) for row in inside.report.layers]
    for layer in range(LAYERS):
        ran = run.compared.result.masks[names[layer]].to_dense()[-1].expand(HEADS, -1, -1)
        assert torch.equal(inside.views[layer, STEPS - 1].kept == 255, ran)
        assert inside.views[layer, 0].is_dense
        sparse = [inside.views[layer, step].recall for step in (1, 2, 3)]
        mean = torch.tensor(sparse).mean(dim=0)
        assert torch.allclose(torch.tensor(inside.recall(layer)), mean, rtol=1e-6, atol=0)
        assert 0 < min(inside.recall(layer)) <= max(inside.recall(layer)) < 1
    least = min(min(inside.recall(layer)) for layer in range(LAYERS))
    assert f"head {0}: {least:.2f}" in last.status or f"head {1}: {least:.2f}" in last.status


def test_at_full_density_everything_is_held(desk):
    _, last = measured(desk, compared(desk, density=1.0, seed=3).opened)
    for layer in range(LAYERS):
        assert last.opened.inside.recall(layer) == (1.0, 1.0)
    assert "hold 1.00 of the attention" in last.status


def test_stop_ends_a_measurement(desk):
    opened = compared(desk).opened
    shown = []
    for found in measure(desk, "page", {"token": opened.token}):
        shown.append(found)
        desk.stop("page")
    assert "Stopped. The model is as it was before." in shown[-1].status
    assert shown[-1].opened is None
    assert session_on(desk.comparison.loaded(lambda _: None).pipe.transformer) is None


def test_the_map_has_a_button_for_every_head(desk):
    opened = compared(desk, method="adaspa").opened
    page = look(opened)
    assert page.count("data-head=") == LAYERS * HEADS
    assert page.count('aria-pressed="true"') == 1
    assert "Measure recall" in page
    assert opened.inside.views.keys() == {(layer, LAST) for layer in range(LAYERS)}
    assert page.count("<img") == 1  # the blocks kept of one head
    for line in ("Sparse", "Over", "kernels", "fallbacks"):
        assert line in page[page.index("<summary>Log") :]
    _, last = measured(desk, opened, layer=2, head=1)
    page = look(last.opened)
    assert page.count("data-head=") == LAYERS * HEADS
    assert 'data-layer="2" data-head="1" tabindex="0" aria-pressed="true"' in page
    assert "Measure recall" not in page
    assert page.count("<img") == 2 * STEPS
    assert re.search(r'aria-label="blocks.0, head 1: density 0\.\d\d, recall 0\.\d\d"', page)


def test_a_head_is_shown_to_who_knows_its_run(desk):
    opened = compared(desk).opened
    shown = shown_head(desk, {"token": opened.token, "layer": 1, "head": 0})
    assert "blocks.1, all heads" in shown  # a window is one mask
    _, last = measured(desk, opened)
    shown = shown_head(desk, {"token": last.opened.token, "layer": 1, "head": 1})
    assert "blocks.1, head 1" in shown
    assert "Step 1 of 4: dense" in shown
    assert re.search(r"Step 2 of 4: density 0\.50, recall 0\.\d{3}", shown)
    assert shown.count('class="sd-step" hidden') == STEPS - 1


@pytest.mark.parametrize("asked", [None, [], "x", {}, {"token": "a" * 32}, {"token": ["x"]}])
def test_what_a_browser_makes_up_shows_nothing(desk, asked):
    assert "not in memory any more" in shown_head(desk, asked)
    if isinstance(asked, dict):
        (only,) = measure(desk, "page", asked)
        assert 'data-state="error"' in only.status


@pytest.mark.parametrize(("layer", "head"), [(99, 0), (0, 99), (0, -1), (-1, 0)])
def test_a_head_that_is_not_there(desk, layer, head):
    asked = {"token": compared(desk).opened.token, "layer": layer, "head": head}
    assert "<img" not in shown_head(desk, asked)


def test_few_insides_are_kept(desk):
    opened = compared(desk).opened
    one = opened.inside.bytes
    assert one > 0
    kept = Insides(most_bytes=2 * one)
    made = [kept.put(Opened(settings=Settings(), inside=opened.inside)) for _ in range(3)]
    assert [kept.get(found.token) is found for found in made] == [False, True, True]
    alone = Insides(most_bytes=0)
    assert alone.get(alone.put(opened).token) is opened
