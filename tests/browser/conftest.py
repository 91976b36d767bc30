"""A real browser, the app on a toy model, and a folder for screenshots."""

import os
import shutil
from pathlib import Path

import pytest
from toy_folder import toy_folder

# Without these a browser asks its makers' servers for things at every start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser_path():
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    return found if found and Path(found).is_file() else None


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    pytest.importorskip("gradio", reason="Gradio is not installed")
    if browser_path() is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser_path(), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("toy") / "toy-wan")


@pytest.fixture(scope="session")
def server(browser, toy, tmp_path_factory):
    from sparsediff.ui.comparison import Comparison
    from sparsediff.ui.gallery import Gallery
    from sparsediff.ui.server import serve

    kept = Gallery(tmp_path_factory.mktemp("past"))
    opened = serve(Comparison(toy, device="cpu"), port=None, gallery=kept)
    yield opened
    opened.close()


@pytest.fixture
def tab(browser, server):
    """A new browser with the page open; errors in its console fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(180_000)  # a loaded machine takes its time
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: _note_outside(request.url, server.address, wrong))
    page.goto(server.address)
    page.wait_for_selector("#compare")
    page.wait_for_selector(".sd-player[data-state=empty]")
    yield page
    context.close()
    assert wrong == []


def _note_outside(url, address, wrong):
    if not url.startswith((address, "data:", "blob:")):
        wrong.append(f"asked somebody else: {url}")


@pytest.fixture
def screenshot():
    """Write a picture of the page into the folder of UI_SCREENSHOTS, if that is set."""
    folder = os.environ.get("UI_SCREENSHOTS")

    def take(page, name, *, whole=True):
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)

    return take
