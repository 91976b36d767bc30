"""Past runs and downloads, as a person uses them."""

import json
import shutil
from pathlib import Path

import pytest
from app_page import DONE, start, unfold

pytestmark = pytest.mark.browser


def test_a_past_run_is_opened_again(tab, server, screenshot):
    start(tab, seed=61, density=0.4)
    tab.wait_for_selector(DONE)
    was = tab.inner_text("#figures [data-figure=PSNR]")
    kept = server.desk.gallery.runs()[0]
    assert kept.settings.seed == 61
    tab.goto(server.address)  # a fresh page
    tab.wait_for_selector(".sd-player[data-state=empty]")
    tab.get_by_role("tab", name="Past runs").click()
    shelf = tab.locator(f"[data-run='{kept.name}']")
    shelf.wait_for()
    assert shelf.evaluate("button => button.querySelector('img').naturalWidth") > 0
    screenshot(tab, "past-runs")
    shelf.press("Enter")
    tab.wait_for_selector(".sd-player[data-state=filled]")
    tab.wait_for_function(
        "() => [...document.querySelectorAll('.sd-media video')].every(v => v.readyState > 2)"
    )
    assert tab.inner_text("#figures [data-figure=PSNR]") == was
    assert "Its settings are back" in tab.inner_text("#status")
    assert tab.input_value("#density input[type=number]") == "0.4"
    assert "seed=61" in tab.url
    tab.wait_for_function("() => document.activeElement.matches('.sd-player')")
    unfold(tab)
    assert tab.input_value("#seed input") == "61"


def test_the_chart_is_downloaded(tab):
    start(tab, seed=62)
    tab.wait_for_selector(DONE)
    tab.get_by_role("tab", name="Trade-off").click()
    with tab.expect_download() as coming:
        tab.get_by_role("link", name="Download the chart").click()
    assert coming.value.suggested_filename == "speed-and-fidelity.png"
    assert Path(coming.value.path()).read_bytes().startswith(b"\x89PNG")
    with tab.expect_download() as coming:
        tab.get_by_role("link", name="Download figures").click()
    document = json.loads(Path(coming.value.path()).read_text())
    assert document["runs"][-1]["settings"]["seed"] == 62
    assert document["runs"][-1]["result"]["versions"]["torch"]


def test_a_run_that_is_not_there(tab, server):
    """A browser that makes names up, and a page that lists what somebody has removed."""
    start(tab, seed=63)
    tab.wait_for_selector(DONE)
    tab.get_by_role("tab", name="Past runs").click()
    run = server.desk.gallery.runs()[0]
    shelf = tab.locator("[data-run]").first
    tab.wait_for_selector(f"[data-run='{run.name}']")
    shelf.evaluate("button => { button.dataset.run = '../../etc'; }")
    shelf.click()
    tab.wait_for_selector("#status [data-state=error]:has-text('not there any more')")
    shutil.rmtree(run.folder)
    shelf.evaluate("(button, name) => { button.dataset.run = name; }", run.name)
    shelf.click()
    tab.wait_for_selector(f"[data-run='{run.name}']", state="detached")  # the list was read again
