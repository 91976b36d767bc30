"""ModelFiles from the Hub: what is absent, what cannot be reached, and what is read."""

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles

FILES = ModelFiles(name="someone/model")


@pytest.fixture
def hub(monkeypatch):
    """Let the Hub's download raise, or return a path."""

    def answer(outcome):
        def download(name, file):
            assert name == "someone/model"
            if isinstance(outcome, Exception):
                raise outcome
            return str(outcome / file)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    return answer


def test_reads_what_was_downloaded(hub, tmp_path):
    (tmp_path / "model_index.json").write_text('{"transformer": ["diffusers", "X"], "_v": [1, 2]}')
    hub(tmp_path)
    assert FILES.components() == {"transformer": "X"}


def test_an_absent_file(hub):
    hub(EntryNotFoundError("no"))
    assert FILES.read("generation.json", required=False) is None
    with pytest.raises(SparseError, match="not a diffusers pipeline"):
        FILES.index()


def test_offline(hub):
    hub(LocalEntryNotFoundError("cannot reach"))
    assert FILES.read("generation.json", required=False) is None
    with pytest.raises(SparseError, match=r"could not be read from the Hub.*network"):
        FILES.index()


def test_a_repository_that_is_not_there(hub):
    assert issubclass(RepositoryNotFoundError, OSError)  # what reading catches
    hub(OSError("401 Client Error\nmore"))
    for required in (True, False):
        with pytest.raises(SparseError, match="401 Client Error Check the name") as found:
            FILES.read("generation.json", required=required)
        assert "more" not in str(found.value)
