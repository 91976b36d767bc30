"""Look inside, in a real browser: recall is measured, a head is chosen by mouse and by keyboard."""

import pytest
from app_page import DONE, start
from toy_folder import LAYERS

pytestmark = pytest.mark.browser

HEADS, STEPS = 2, 4
CELL = "#look [data-layer='{}'][data-head='{}']"
TITLE = "#look .sd-head-view h3:text-is('{}')"


def shown_maps(page):
    return page.locator("#look .sd-step:not([hidden]) img")


def loaded(page):
    """Every picture in sight has pixels."""
    return shown_maps(page).evaluate_all("all => all.every(one => one.naturalWidth > 1)")


def test_measure_and_choose_a_head(tab, screenshot):
    start(tab, seed=8)
    tab.wait_for_selector(DONE)
    tab.get_by_role("tab", name="Look inside").click()
    tab.wait_for_selector("#look .sd-heads")
    assert tab.locator("#look .sd-heads tbody tr").count() == LAYERS
    assert shown_maps(tab).count() == 1  # the blocks kept; attention is not known yet
    tab.locator(CELL.format(1, 1)).click()
    tab.wait_for_selector(TITLE.format("blocks.1, head 1"))
    figures = tab.inner_text("#figures")
    tab.get_by_role("button", name="Measure recall").click()
    tab.wait_for_selector("#look [data-map=recall]")
    assert tab.inner_text("#figures") == figures
    assert "of the attention's weight" in tab.inner_text("#status")
    tab.wait_for_selector(TITLE.format("blocks.1, head 1"))  # still the one that was chosen
    check_mouse(tab)
    check_keyboard(tab)
    screenshot(tab, "inside-measured")
    tab.get_by_role("radio", name="Density").click()
    assert tab.locator("#look [data-map=density]").count() == 1
    assert tab.locator("#look .sd-heads .recall").first.is_hidden()
    tab.get_by_role("button", name="Compare").click()
    tab.wait_for_selector("#look [data-do=measure]")  # of the new run, whose recall is not known


def check_mouse(page):
    cell = page.locator(CELL.format(2, 0))
    cell.click()
    page.wait_for_selector(TITLE.format("blocks.2, head 0"))
    assert cell.get_attribute("aria-pressed") == "true"
    assert page.locator("#look .sd-heads [aria-pressed=true]").count() == 1
    assert shown_maps(page).count() == 2
    assert loaded(page)
    before = page.inner_text("#look .sd-step:not([hidden]) .sd-when")
    slider = page.get_by_role("slider", name="Step of the maps")
    slider.press("End")
    assert f"Step {STEPS} of {STEPS}" in page.inner_text("#look .sd-step:not([hidden]) .sd-when")
    slider.press("Home")
    assert "Step 1 of 4: dense" in page.inner_text("#look .sd-step:not([hidden]) .sd-when")
    slider.press("ArrowRight")
    assert page.inner_text("#look .sd-step:not([hidden]) .sd-when") == before


def check_keyboard(page):
    """One stop for the tabulator key, arrows inside, Enter chooses."""
    assert page.locator("#look .sd-heads button[tabindex='0']").count() == 1
    page.locator("#look .sd-heads button[tabindex='0']").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # no further than the last head
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("blocks.1, head 1: density")
    assert "recall" in label
    page.keyboard.press("Enter")
    page.wait_for_selector(TITLE.format("blocks.1, head 1"))
    step = page.inner_text("#look .sd-step:not([hidden]) .sd-when")
    assert step.startswith("Step 2 of 4: density")  # the step that was chosen for the head before
    assert loaded(page)
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    page.wait_for_selector(TITLE.format("blocks.1, head 0"))
