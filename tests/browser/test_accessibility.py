"""axe-core on every tab of the app, in both colour schemes, on a desk and on a phone."""

import pytest
from app_page import DONE, start

pytestmark = pytest.mark.browser

GRAVE = ("serious", "critical")
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def axe():
    base = pytest.importorskip(
        "axe_playwright_python.base", reason="axe-playwright-python is not installed"
    )
    return base.AXE_SCRIPT


def grave(page, axe):
    """What axe-core finds, a line for each element, as far as it keeps people out."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert found["passes"], "nothing was looked at"
    return [
        f"{rule['impact']} {rule['id']}: {node['target']} {node['html'][:120]} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]


def dress(page, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.reload()
    page.wait_for_selector("#compare")
    page.wait_for_selector(".sd-player[data-state=empty]")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(tab, axe, scheme, screenshot):
    dress(tab, scheme)
    assert grave(tab, axe) == []
    start(tab, seed=71)
    tab.wait_for_selector(DONE)
    names = [name for name in tab.get_by_role("tab").all_inner_texts() if name.strip()]
    assert {"Result", "Look inside", "Trade-off", "Past runs"} <= set(names)
    for name in names:
        tab.get_by_role("tab", name=name).click()
        for place, size in SIZES.items():
            tab.set_viewport_size(size)
            tab.wait_for_timeout(300)  # colours change smoothly
            assert grave(tab, axe) == [], f"{name}, {scheme}, {place}"
            screenshot(tab, f"{place}-{scheme}-{name.lower().replace(' ', '-')}")
            assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, place
        tab.set_viewport_size(SIZES["desk"])  # all tabs are in sight there


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_error_can_be_read(tab, axe, scheme):
    dress(tab, scheme)
    tab.goto(f"{tab.url.split('?')[0]}?steps=many")
    tab.wait_for_selector("#status [data-state=error]")
    assert grave(tab, axe) == []


def test_a_picture_without_words_would_be_found(tab, axe):
    tab.evaluate(
        "document.querySelector('.sd-head').insertAdjacentHTML('beforeend', '<img src=\"data:,\">')"
    )
    assert any("image-alt" in line for line in grave(tab, axe))
