"""The Search tab in a real browser: a plan searched, compared, downloaded, uploaded, refused."""

import json
import urllib.error
import urllib.parse
import urllib.request

import pytest
from app_page import settle, unfold
from toy_folder import BRANCHES, LAYERS, PROMPT

from sparsediff.plans import PatternPlan

pytestmark = pytest.mark.browser

SAID = "#search-status"
NAME = "plan density 0.6"


def open_tab(page):
    page.get_by_role("tab", name="Search").click()
    settle(page, "#search")


def upload(page, name, content):
    page.locator("#plan-upload input").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": content}
    )


def method(page):
    return page.locator("#method input")


def refused(page, words):
    page.wait_for_selector(f"{SAID} [data-state=error]:has-text('{words}')")
    assert method(page).input_value() == "adaspa"


def test_search_compare_download_upload(tab, server, browser, screenshot, tmp_path):
    unfold(tab)
    tab.locator("#gate input").set_checked(False)  # the toy is too small to pay
    open_tab(tab)
    tab.locator("#search-value input").fill("0.6")
    tab.get_by_role("button", name="Search").click()
    tab.wait_for_selector(f"{SAID} [role=progressbar]")
    assert tab.locator("#compare").is_disabled()
    tab.wait_for_selector(f"{SAID} [data-state=done]:has-text('{NAME} is chosen')")
    assert tab.locator("#plan .heat tbody tr").count() == LAYERS
    assert method(tab).input_value() == NAME
    assert tab.locator("#density input[type=range]").is_disabled()  # the plan has its own
    screenshot(tab, "search")
    check_compared(tab)
    open_tab(tab)
    path = downloaded(tab, tmp_path)
    plan = PatternPlan.from_pretrained(path)
    plan.check(server.desk.comparison.loaded(lambda _: None).pipe)
    assert plan.evidence.prompts == (PROMPT,)
    assert f"{plan.table.density:.3f}" in tab.inner_text("#plan [data-figure=density]")
    check_files(server)
    check_another_page(browser, server, path, screenshot)


def check_compared(page):
    page.get_by_role("tab", name="Result").click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#status [data-state=done]")
    assert f"{3 * LAYERS * BRANCHES} of {4 * LAYERS * BRANCHES}" in page.inner_text("#status")
    assert "fell back" not in page.inner_text("#status").lower()
    assert urllib.parse.quote_plus(NAME) in page.url


def downloaded(page, folder):
    with page.expect_download() as found:
        page.locator("#plan-download").click()
    assert found.value.suggested_filename == f"{NAME}.json"
    found.value.save_as(folder / "got.json")
    return folder / "got.json"


def check_files(server):
    """What the server keeps is not to be had by its path: only what a page was given."""
    kept = list(server.desk.folder.rglob("*.json"))
    assert kept
    paths = [*kept, server.desk.folder, "/proc/self/environ", "..%2F..%2Fetc%2Fpasswd"]
    for path in map(str, paths):
        for route in ("file=", "file/"):
            address = f"{server.address}gradio_api/{route}{urllib.parse.quote(path, safe='/%')}"
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(address, timeout=60)
            assert answer.value.code in (403, 404), address


def check_another_page(browser, server, path, screenshot):
    """It knows nothing of the plan, and takes it when it is given; what is none is refused."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(180_000)
    page.goto(server.address)
    page.wait_for_selector("#compare")
    unfold(page)
    method(page).click()
    assert NAME not in page.get_by_role("listbox").inner_text()
    page.keyboard.press("Escape")
    open_tab(page)
    content = path.read_bytes()
    other = json.loads(content)
    other["fingerprint"]["components"][0]["model"] = "OtherTransformer3DModel"
    upload(page, "bad.json", b'{"schema": "sparsediff.plan/1"')
    refused(page, "The file is cut off")
    upload(page, "bad.json", b"\x80\x05cos\nsystem\n.")
    refused(page, "pickle and zip files are not read")
    upload(page, "weights.pt", b"\x80\x05cos\nsystem\n.")
    refused(page, "weights.pt is no JSON file")
    upload(page, "other.json", json.dumps(other).encode())
    refused(page, "searched on another model")
    upload(page, "large.json", b" " * (16 * 2**20 + 1))
    refused(page, "larger than any plan")
    screenshot(page, "search-refused")
    upload(page, "mine.json", content)
    page.wait_for_selector(f"{SAID} [data-state=done]:has-text('mine is chosen')")
    assert method(page).input_value() == "mine"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    screenshot(page, "search-phone")
    context.close()


def test_an_address_with_a_plan_of_a_page_that_was_left(tab, server):
    tab.goto(f"{server.address}?method=plan+gone&seed=77")
    tab.wait_for_selector("#status [data-state=error]:has-text('no method or plan called')")
    unfold(tab)
    assert method(tab).input_value() == "adaspa"
    assert tab.locator("#seed input").input_value() == "77"


def test_stop_a_search(tab, server):
    unfold(tab)
    tab.locator("#steps input").fill("300")
    open_tab(tab)
    assert tab.locator("#steps input").input_value() == "300"
    tab.get_by_role("button", name="Search").click()
    tab.wait_for_selector(f"{SAID} p:text-matches('step [0-9]+ of 300')")
    tab.locator("#search-stop").click()
    tab.wait_for_selector(f"{SAID} p:has-text('Stopped. The model is as it was')")
    assert tab.locator("#search").is_enabled()
    assert server.desk.jobs.running == 0
