"""`sparsediff ui`: where past runs are kept, and where not."""

import pytest

from sparsediff.cli import parser
from sparsediff.cli.ui import gallery_of
from sparsediff.kernels.errors import SparseError


def kept(*words):
    found = gallery_of(parser().parse_args(["ui", *words]))
    return None if found is None else found.folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_runs_are_kept_in_the_cache_unless_others_may_come(cache):
    assert kept() == cache / "past-runs"
    assert kept("--no-gallery") is None
    assert kept("--host", "0.0.0.0") is None
    assert not cache.exists()  # nothing is made before there is something to keep


def test_a_folder_that_was_named_is_used(tmp_path):
    assert kept("--gallery", str(tmp_path / "mine")) == tmp_path / "mine"
    assert kept("--gallery", str(tmp_path), "--host", "0.0.0.0") == tmp_path
    (tmp_path / "file").write_text("")
    with pytest.raises(SparseError, match=r"is a file\. Choose another with --gallery"):
        kept("--gallery", str(tmp_path / "file"))


def test_both_at_once_are_refused(capsys):
    with pytest.raises(SystemExit):
        kept("--gallery", "here", "--no-gallery")
    assert "not allowed with" in capsys.readouterr().err
