"""From the start of `sparsediff ui` to the first comparison on the sample model, as a newcomer sees it.

Asked for by FIRST_COMPARISON=1 (`make first-comparison`): it measures, so it needs a machine to itself.
"""

import os
import re
import subprocess
import sys
import time

import pytest
from app_page import DONE, PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not os.environ.get("FIRST_COMPARISON"), reason="measures: make first-comparison"
    ),
]

WITHIN = 90  # seconds from the command to the figures, on two cores


@pytest.fixture
def address():
    """Of the app on its own defaults, in a process of its own; and when that was started."""
    began = time.monotonic()
    command = [sys.executable, "-m", "sparsediff.cli", "ui", "--port", "0", "--no-gallery"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = ""
        while not (found := re.search(r"open (http\S+) in", told)):
            line = process.stdout.readline()
            assert line, f"the app ended: {told}"
            told += line
        try:
            yield found[1], began
        finally:
            process.terminate()


def show_frame(page, number):
    """Pause, and go there frame by frame, in the middle of the wipe."""
    player = page.locator(".sd-player")
    if page.get_by_role("button", name="Pause", exact=True).count():
        player.press(" ")
    for _ in range(40):
        shown = int(page.inner_text(".sd-frame").split(" / ")[0])
        if shown == number:
            return
        player.press("ArrowRight" if shown < number else "ArrowLeft")
        page.wait_for_timeout(100)


def test_first_comparison(browser, address, screenshot):
    url, began = address
    context = browser.new_context(viewport={"width": 1280, "height": 1010})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.get_by_role("button", name="Compare").click()  # nothing else: the defaults have to do
    page.wait_for_selector(DONE)
    took = time.monotonic() - began
    assert page.locator(".sd-media video").count() == 2
    speed = page.inner_text("[data-figure=speed-up]")
    show_frame(page, 9)
    screenshot(page, "first-comparison", whole=False)
    page.get_by_role("tab", name="Look inside").click()
    page.get_by_role("button", name="Measure recall").click()
    page.wait_for_selector("#look [data-map=recall]")
    screenshot(page, "first-look", whole=False)
    context.close()
    print(f"first comparison after {took:.0f} s, {' '.join(speed.split())}")
    assert took < WITHIN
