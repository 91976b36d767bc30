"""A model that makes one picture is compared in the same player, by mouse and by keyboard."""

import pytest
from app_page import DONE, PATIENCE, start
from toy_folder import toy_picture_folder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def picture_server(browser, tmp_path_factory):
    from sparsediff.ui.comparison import Comparison
    from sparsediff.ui.server import serve

    folder = toy_picture_folder(tmp_path_factory.mktemp("toy") / "toy-flux")
    opened = serve(Comparison(folder, device="cpu"), port=None)
    yield opened
    opened.close()


def test_a_picture_is_wiped(browser, picture_server, screenshot):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(picture_server.address)
    page.wait_for_selector(".sd-player[data-state=empty][data-kind=img]")
    assert page.locator("#frames").count() == 0
    assert not page.locator(".sd-transport").is_visible()  # a picture has no time
    stage = page.locator(".sd-stage").bounding_box()
    start(page, seed=4)
    page.wait_for_selector(DONE)
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.sd-media img')];"
        " return all.length === 2 && all.every(one => one.naturalWidth === 256); }"
    )
    assert page.locator(".sd-stage").bounding_box()["height"] == stage["height"]  # nothing jumps
    check_keyboard(page)
    assert "seed=4" in page.url
    assert "flicker" not in page.inner_text("#figures")
    screenshot(page, "picture")
    context.close()


def check_keyboard(page):
    """The line between both moves by keys alone, as does what is shown."""
    player, line = page.locator(".sd-player"), page.get_by_role("slider", name="Where dense ends")
    assert "arrows move the line" in player.get_attribute("aria-label")
    player.press("ArrowLeft")
    assert line.input_value() == "48"
    player.press("ArrowRight")
    player.press("ArrowRight")
    assert line.input_value() == "52"
    shown = "() => getComputedStyle(document.querySelector('.sd-media .sd-sparse')).clipPath"
    assert page.evaluate(shown) == "inset(0px 0px 0px 52%)"
    line.press("Home")
    assert page.evaluate(shown) == "inset(0px 0px 0px 0%)"
    for key, view in {"d": "dense", "x": "difference", "w": "wipe"}.items():
        player.press(key)
        assert player.get_attribute("data-view") == view
    line.fill("50")
