"""The app as a person uses it, in a real browser: compare, wipe, keys, stop, close, probe."""

import json
import time
import urllib.error
import urllib.request

import pytest
from app_page import DONE, PATIENCE, start
from toy_folder import BRANCHES, LAYERS, PROMPT

from sparsediff.compare import generate
from sparsediff.root_hooks import session_on
from sparsediff.ui.settings import Settings

pytestmark = pytest.mark.browser

IN_SYNC = 0.05  # seconds: less than one frame at 16 frames a second, which nobody sees


def times(page):
    return page.eval_on_selector_all(".sd-media video", "all => all.map(v => v.currentTime)")


def clip(page):
    return page.eval_on_selector(".sd-media .sd-sparse", "v => getComputedStyle(v).clipPath")


def test_compare_and_look(tab, server, screenshot):
    start(tab, seed=5)
    tab.wait_for_selector(DONE)
    assert f"{3 * LAYERS * BRANCHES} of {4 * LAYERS * BRANCHES}" in tab.inner_text("#status")
    comparison = server.desk.comparison
    settings = Settings(prompt=PROMPT, seed=5, gate=False)
    alone = generate(comparison.request(settings))  # what the command line runs
    shown = tab.inner_text("[data-figure=PSNR]"), tab.inner_text("[data-figure=density]")
    assert f"{alone.quality.psnr:.1f} dB" in shown[0]
    assert f"{alone.report.density:.3f}" in shown[1]
    assert "seed=5" in tab.url
    tab.wait_for_function(
        "() => [...document.querySelectorAll('.sd-media video')].every(v => v.readyState > 2)"
    )
    check_wipe(tab)
    check_clock(tab)
    screenshot(tab, "compared")
    tab.get_by_role("tab", name="Look inside").click()
    tab.wait_for_selector("#look .heat")
    assert tab.locator("#look .heat tbody tr").count() == LAYERS
    screenshot(tab, "inside")
    tab.get_by_role("tab", name="Trade-off").click()
    tab.wait_for_selector("#tradeoff .chosen")
    assert tab.locator("#tradeoff .best").count() == 1
    screenshot(tab, "tradeoff")


def check_wipe(page):
    stage = page.locator(".sd-stage").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    page.mouse.move(stage["x"] + stage["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] / 4, middle, steps=3)
    page.mouse.up()
    assert abs(float(page.input_value(".sd-split")) - 25) <= 1
    player = page.locator(".sd-player")
    for key, view in {"d": "dense", "s": "sparse", "x": "difference", "w": "wipe"}.items():
        player.press(key)
        assert player.get_attribute("data-view") == view
        assert page.locator(".sd-views [aria-checked=true]").inner_text().lower() == view
        assert clip(page).startswith("inset(0" if view in ("dense", "wipe") else "none")


def check_clock(page):
    """Both videos show one moment: while playing, and frame by frame."""
    player = page.locator(".sd-player")
    if page.get_by_role("button", name="Play", exact=True).count():
        player.press(" ")
    page.wait_for_function("() => document.querySelector('.sd-media video').currentTime > 0.2")
    drift = page.evaluate(
        """async () => {
            const [a, b] = document.querySelectorAll('.sd-media video'), apart = [];
            for (let i = 0; i < 11; i++) {
                await new Promise(requestAnimationFrame);
                const distance = Math.abs(a.currentTime - b.currentTime);
                apart.push(Math.min(distance, a.duration - distance));  // they run in a loop
            }
            return apart.sort((x, y) => x - y)[5];
        }"""
    )
    assert drift < IN_SYNC
    page.get_by_role("button", name="Pause", exact=True).click()
    page.locator(".sd-time").fill("3")
    page.wait_for_function(at_frame(3))
    player.press("ArrowRight")
    page.wait_for_function(at_frame(4))
    first, second = times(page)
    assert first == second
    assert page.inner_text(".sd-frame") == "5 / 5"


def at_frame(number):
    """Eight frames a second, in the middle of a frame."""
    return (
        "() => [...document.querySelectorAll('.sd-media video')].every("
        f"v => !v.seeking && Math.floor(v.currentTime * 8) === {number})"
    )


def test_stop_and_close(tab, browser, server):
    desk = server.desk
    start(tab, steps=400)
    tab.wait_for_selector("#status [role=progressbar]")
    other = browser.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(server.address)
    other.wait_for_selector("#compare")
    start(other, steps=300)
    other.wait_for_selector("#status p:has-text('Waiting for 1 other run')")
    tab.get_by_role("button", name="Stop").click()
    tab.wait_for_selector("#status p:has-text('Stopped. The model is as it was')")
    other.wait_for_selector("#status p:text-matches('step [0-9]+ of 300')")  # a page may skip some
    other.close()  # in the midst of its run
    end = time.monotonic() + 30
    while desk.jobs.running or len(desk.comparison.line):
        assert time.monotonic() < end, "a closed page left its run behind"
        time.sleep(0.1)
    assert session_on(desk.comparison.loaded(lambda _: None).pipe.transformer) is None


def test_a_shared_address_and_a_small_screen(browser, server, screenshot):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{server.address}?prompt=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&seed=77&density=0.5")
    page.wait_for_function("() => document.querySelector('#prompt textarea')?.value.includes('<')")
    page.wait_for_function(
        "() => document.querySelector('#density input[type=number]').value === '0.5'"
    )
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    screenshot(page, "phone")
    page.goto(f"{server.address}?steps=many")
    page.wait_for_selector("#status [data-state=error]")
    context.close()


def test_no_file_by_its_path(server, toy):
    for path in ("/etc/passwd", "../../etc/passwd", "pyproject.toml", f"{toy}/model_index.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.address}gradio_api/file={path}", timeout=60)
        assert refused.value.code in (403, 404), path


def test_gradios_own_doors_are_closed(server):
    """No history of runs, which asks the Hub for others, and no way past the queue."""
    compare = next(d["id"] for d in server.blocks.config["dependencies"] if d["api_name"] == "run")
    body = json.dumps({"fn_index": compare, "data": [], "session_hash": "outsider"}).encode()
    asked = [
        ("runs", None),
        ("run-history/buckets", None),
        ("run/predict", body),
    ]
    for path, data in asked:
        request = urllib.request.Request(f"{server.address}gradio_api/{path}", data=data)
        request.add_header("Content-Type", "application/json")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert refused.value.code == 404, path
