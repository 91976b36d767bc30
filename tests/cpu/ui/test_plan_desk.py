"""PlanDesk: a plan searched, stopped, uploaded, refused; and run as a method of its page alone."""

import base64
import dataclasses
import json
import threading
import time

import pytest
from toy_folder import BRANCHES, LAYERS, PROMPT

from sparsediff.cli import main
from sparsediff.plans import PatternPlan
from sparsediff.root_hooks import session_on
from sparsediff.search import TokenGrid
from sparsediff.ui.desk import Desk, Shown
from sparsediff.ui.news import News
from sparsediff.ui.plan_desk import PlanDesk
from sparsediff.ui.plan_view import plan_view

VALUES = {"prompt": PROMPT, "seed": 3, "gate": False}
CHOICES = {"value": 0.6, "cost": "flops"}  # times would differ from run to run


@pytest.fixture
def desk(comparison, tmp_path):
    return Desk(comparison, tmp_path / "files")


@pytest.fixture
def plans(desk):
    return PlanDesk(desk)


@pytest.fixture(scope="module")
def searched(comparison, tmp_path_factory):
    """A desk on which one page has searched a plan, and all that it was shown."""
    plans = PlanDesk(Desk(comparison, tmp_path_factory.mktemp("files")))
    return plans, list(plans.search("page", VALUES, CHOICES))


def sent(plan, name="mine.json"):
    content = plan if isinstance(plan, bytes) else plan.to_json()
    return {"name": name, "content": base64.b64encode(content).decode(), "size": len(content)}


def test_a_search_is_told_and_ends_with_a_plan(searched):
    plans, (*news, last) = searched
    told = " ".join(shown.status for shown in news)
    for words in ("Looking at dense attention, prompt 1 of 1", "Trying patterns", "step 4 of 4"):
        assert words in told
    assert all(shown.running and shown.plan is None for shown in news)
    assert last.plan.name == "plan density 0.6"
    assert "plan density 0.6 is chosen as the method" in last.status
    assert last.plan.plan.evidence.prompts == (PROMPT,)
    assert last.plan.plan.evidence.seeds == (3,)
    assert plans.desk.jobs.running == len(plans.comparison.line) == 0
    assert list(plans.desk.folder.glob("plan-*")) == []  # nothing of the work is left
    view = plan_view(last.plan)
    assert view.count('class="heat"') == 1
    assert view.count("m-full") + view.count("m-diagonal") > 0
    assert f"{last.plan.plan.table.density:.3f}" in view


def test_it_is_the_plan_of_the_command_line(searched, toy, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPT)
    words = ["--prompts", str(prompts), "--density", "0.6", "--seed", "3", "--cost", "flops"]
    out = ["--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    assert main(["search", toy, *words, *out]) == 0
    capsys.readouterr()
    found = PatternPlan.from_pretrained(tmp_path / "run")
    mine = searched[1][-1].plan.plan
    assert mine.table == found.table
    assert mine.fingerprint == found.fingerprint
    assert mine.evidence == dataclasses.replace(found.evidence, command=None)


def test_the_plan_runs_as_a_method_of_its_page_alone(searched):
    plans, shown = searched
    named, desk = shown[-1].plan, plans.desk
    *_, last = desk.compare("page", VALUES | {"method": named.name})
    report = last.compared.result.report
    assert report.sparse_calls == 3 * LAYERS * BRANCHES  # of four steps the first is dense
    assert report.fallbacks == {}
    assert report.method["name"] == "sparse-vdit"
    assert last.compared.result.plan == named.plan.to_dict()
    *_, sweep = desk.sweep("page", VALUES | {"method": named.name})
    assert "A plan has one density" in sweep.status
    *_, other = desk.compare("another page", VALUES | {"method": named.name})
    assert "There is no method or plan called" in other.status
    assert plans.methods("page") == [*plans.comparison.methods, named.name]
    assert plans.methods("another page") == list(plans.comparison.methods)
    assert named.name not in plans.comparison.methods


def test_a_download_is_read_by_the_loader_and_can_be_uploaded(searched, desk, plans):
    other_desk, shown = searched
    named = shown[-1].plan
    path = other_desk.file(named)
    assert path.name == "plan density 0.6.json"
    assert other_desk.desk.folder in path.parents
    assert PatternPlan.from_pretrained(path) == named.plan
    *_, last = plans.upload("page", VALUES, sent(path.read_bytes(), "../../my plan.JSON"))
    assert last.plan.name == "my plan"
    assert last.plan.plan == named.plan
    assert "It was searched on this model." in last.status
    *_, again = plans.upload("page", VALUES, sent(named.plan))
    assert again.plan.name == "my plan"  # the page has it already
    *_, compared = desk.compare("page", VALUES | {"method": "my plan"})
    assert compared.compared.result.report.sparse_calls > 0
    desk.leave("page")
    *_, gone = desk.compare("page", VALUES | {"method": "my plan"})
    assert "There is no method or plan called" in gone.status


def of_another_model(plan):
    first, *rest = plan.fingerprint.components
    components = (dataclasses.replace(first, model="OtherTransformer3DModel"), *rest)
    return dataclasses.replace(
        plan, fingerprint=dataclasses.replace(plan.fingerprint, components=components)
    )


def of_another_size(plan):
    grid = TokenGrid(frames=3, height=10, width=8)
    return dataclasses.replace(plan, table=dataclasses.replace(plan.table, grid=grid))


def of_an_unknown_key(plan):
    return json.dumps(json.loads(plan.to_json()) | {"blocks": 1}).encode()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_another_model, "searched on another model. class of transformer: the plan has Other"),
        (of_another_size, "for 128 x 160 pixels and 9 frames; the size chosen here is 128 x 128"),
        (of_an_unknown_key, "unknown key &#x27;blocks&#x27;"),
        (lambda plan: plan.to_json()[:-40], "The file is cut off or was edited by hand"),
        (lambda plan: b"\x80\x05\x95\x10\x00", "pickle and zip files are not read"),
        (lambda plan: b"", "line 1 column 1"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused(searched, desk, plans, spoil, said):
    *_, last = plans.upload("page", VALUES, sent(spoil(searched[1][-1].plan.plan)))
    assert 'data-state="error"' in last.status
    assert said in last.status
    assert last.plan is None
    assert plans.methods("page") == list(plans.comparison.methods)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "<b>.pt"}, "&lt;b&gt;.pt is no JSON file"),
        ({"name": "/etc/passwd"}, "passwd is no JSON file"),
        ({"name": 7}, "Nothing was uploaded"),
        ({"content": None}, "Nothing was uploaded"),
        ({"content": {"path": "/etc/passwd"}}, "Nothing was uploaded"),
        ({"content": "/etc/passwd"}, "arrived broken"),
        ({"content": "", "size": 17 * 2**20}, "larger than any plan, which has at most 16 MiB"),
        ({"content": "A" * (16 * 2**20 // 3 * 4 + 8)}, "larger than any plan"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_upload_is_refused(plans, change, said):
    *_, last = plans.upload("page", VALUES, {"name": "a.json", "content": "", "size": 0} | change)
    assert 'data-state="error"' in last.status
    assert said in last.status
    assert not plans.desk.folder.exists()  # nothing of it was written


def test_an_upload_leaves_what_the_page_is_running(searched, desk, plans):
    taken = threading.Event()

    def work(tell):
        while not taken.wait(0.01):
            tell(News(phase="Sparse"))
        return Shown(status="done", running=False)

    running = desk.follow("page", work)
    next(running)
    *_, last = plans.upload("page", VALUES, sent(searched[1][-1].plan.plan))
    assert last.plan.name == "mine"
    taken.set()
    assert [shown.status for shown in running][-1] == "done"


def test_other_weights_are_said(searched, plans):
    plan = searched[1][-1].plan.plan
    other = dataclasses.replace(
        plan, fingerprint=dataclasses.replace(plan.fingerprint, weights="0" * 64)
    )
    *_, last = plans.upload("page", VALUES, sent(other))
    assert "other weights than this model" in last.status
    assert last.plan is not None


@pytest.mark.parametrize(
    ("values", "choices", "said"),
    [
        ({"steps": 0}, {}, "whole number from 1 to 500"),
        ({}, {"value": 0}, "share of blocks to compute"),
        ({}, {"value": None}, "needs a number"),
        ({}, {"budget": "<i>"}, "&lt;i&gt;"),
        ({}, {"extras": ("magic",)}, "&#x27;magic&#x27; is unknown"),
        ({}, {"prompts": "a\n" * 17}, "at most 16, one a line"),
        ({"width": 120}, {}, "have to be divisible by 16"),
        ({"steps": 1}, {}, "Use a larger size or more steps."),
    ],
)
def test_a_search_that_cannot_be_is_refused(plans, comparison, values, choices, said):
    *_, last = plans.search("page", VALUES | values, CHOICES | choices)
    assert 'data-state="error"' in last.status
    assert said in last.status
    assert last.plan is None
    assert session_on(comparison.loaded(lambda _: None).pipe.transformer) is None


@pytest.mark.parametrize("at", ["Looking at dense attention", "Trying patterns"])
def test_stop_ends_a_search_and_leaves_the_model_as_it_was(desk, plans, comparison, at):
    model = comparison.loaded(lambda _: None).pipe.transformer
    shown = []
    for found in plans.search("page", VALUES | {"steps": 6}, CHOICES):
        shown.append(found)
        if at in found.status and "step " in found.status:
            desk.stop("page")
    assert "Stopped. The model is as it was before." in shown[-1].status
    assert shown[-1].plan is None
    assert session_on(model) is None
    assert not model._forward_pre_hooks
    assert list(desk.folder.glob("plan-*")) == []
    assert plans.methods("page") == list(comparison.methods)


def test_a_search_takes_its_turn_and_ends_when_the_page_starts_another_run(desk, plans):
    with desk.comparison.line.turn(lambda _: None):
        search = plans.search("page", VALUES, CHOICES)
        waiting = next(search)
        while "Waiting for 1 other run" not in waiting.status:
            waiting = next(search)
        other = list(desk.follow("page", lambda tell: Shown(status="other", running=False)))
        rest = list(search)
    assert "this page began another run" in rest[-1].status
    assert not rest[-1].running  # the other one is over too, so its buttons come back
    assert [shown.status for shown in other] == ["other"]
    end = time.monotonic() + 30
    while len(desk.comparison.line):
        assert time.monotonic() < end
        time.sleep(0.01)
