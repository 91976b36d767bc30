"""samples/space, started from a copy as a Space starts it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOON = 300  # seconds that a loaded machine may need; it takes a few


@pytest.fixture
def copied(tmp_path):
    """The folder as its README says, with the sample model beside the app."""
    folder = shutil.copytree(ROOT / "samples" / "space", tmp_path / "space")
    (folder / "shapes-wan").symlink_to(ROOT / "samples" / "models" / "shapes-wan")
    return folder


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(address, app):
    """The page, as soon as it is there."""
    end = time.monotonic() + SOON
    while True:
        try:
            with urllib.request.urlopen(address, timeout=SOON) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            assert app.poll() is None, app.communicate()
            assert time.monotonic() < end, "the page did not come"
            time.sleep(0.2)


def test_the_page_comes_up_and_the_app_ends_when_told(copied):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    port = free_port()
    set_by_a_space = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    unset = ("MODEL", "PYTHONSAFEPATH", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    app = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=copied,
        env=environment | set_by_a_space,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        page = ask(f"http://127.0.0.1:{port}/", app)
        assert '"title":"sparsediff"' in page
        assert "shapes-wan" in page
        assert str(ROOT) not in page  # no path of the machine
        assert "Past runs" not in page  # nobody sees what others typed
        assert any(line.startswith(f"open http://127.0.0.1:{port}") for line in app.stdout)
    finally:
        app.terminate()
        app.communicate(timeout=SOON)
    assert app.returncode == -signal.SIGTERM  # it was running until then
