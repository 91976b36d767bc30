"""Rows 7 to 12 of the fault catalogue: files that are missing, spoiled, dangerous or out of reach."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plan_files import change
from safetensors.numpy import save
from untouched import states

import sparsediff
from sparsediff.kernels.errors import PlanError
from sparsediff.plans import PatternPlan
from sparsediff.plans.file_limits import refuse_pickles


def refused(pipe: Any, choice: object) -> str:
    before = states(pipe)
    with pytest.raises(PlanError) as found:
        pipe.enable_sparse_attention(choice)
    assert states(pipe) == before
    return str(found.value)


def write_tables(folder: Path, **arrays: Any) -> None:
    """Another tables file, which plan.json takes for its own."""
    content = save({name: np.asarray(array) for name, array in arrays.items()})
    (folder / "tables.safetensors").write_bytes(content)
    change(folder, lambda v: v.update(tables_sha256=sha256(content).hexdigest()))


def i32(*values: int) -> Any:
    return np.asarray(values, dtype=np.int32)


def i64(*values: int) -> Any:
    return np.asarray(values, dtype=np.int64)


def test_tables_as_they_should_be(plan: PatternPlan, folder: Path) -> None:
    """What the cases below spoil is otherwise right."""
    write_tables(folder, columns=i32(0, 2, 5, 1), starts=i64(0, 3, 4))
    assert PatternPlan.from_pretrained(folder) == plan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"columns": i32(0, 2, 6, 1)}, "row 0, column 6 at 2: needs 0 to 5"),
        ({"columns": i32(0, 2, 5, -1)}, "row 1, column -1 at 0: needs 0 to 5"),
        ({"columns": i32(0, 2, 2, 1)}, "row 0, column 2 at 2: needs ascending numbers"),
        ({"columns": i32(5, 2, 0, 1)}, "row 0, column 2 at 1: needs ascending numbers"),
        ({"columns": i64(0, 2, 5, 1)}, "columns is I64 of shape [4]; needs I32 of one axis"),
        ({"starts": i32(0, 3, 4)}, "starts is I32 of shape [3]; needs I64 of one axis"),
        ({"columns": i32(0, 2, 5, 1).reshape(2, 2)}, "columns is I32 of shape [2, 2]"),
        ({"starts": i64(0, 3, 5)}, "starts has to lead from 0 to the 4 columns"),
        ({"starts": i64(1, 3, 4)}, "starts has to lead from 0"),
        ({"starts": i64(0, 4, 4)}, "row 1 is empty"),
        ({"starts": i64(0, 9, 4)}, "row 1 is empty or ends before it starts"),
        ({"starts": i64(0, -3, 4)}, "row 0 is empty or ends before it starts"),
        ({"starts": i64()}, "starts has to lead from 0"),
        ({"columns": i32(), "starts": i64(0)}, "starts has to lead from 0"),
        ({"more": i32(1)}, "it holds columns, more, starts; needs columns and starts"),
        ({"columns": np.zeros(4, np.float32)}, "columns is F32 of shape [4]; needs I32"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_row_7_spoiled_tables(pipe: Any, folder: Path, arrays: Any, message: str) -> None:
    write_tables(folder, **({"columns": i32(0, 2, 5, 1), "starts": i64(0, 3, 4)} | arrays))
    found = refused(pipe, folder)
    assert "tables.safetensors: " in found
    assert message in found


def test_row_7_missing_and_broken_tables(pipe: Any, folder: Path) -> None:
    path = folder / "tables.safetensors"
    content = path.read_bytes()
    for broken in (b"", content[:7], content[:40], b"\xff" * 100, content + b"x"):
        path.write_bytes(broken)
        assert "tables.safetensors: it is no safetensors file" in refused(pipe, folder)
    path.write_bytes(content)
    changed = bytearray(content)
    changed[content.rindex(i32(0, 2, 5, 1).tobytes()) + 12] = 3  # the last column, still in range
    path.write_bytes(changed)
    assert "not the file that plan.json was written with" in refused(pipe, folder)
    path.unlink()
    assert "has no tables.safetensors" in refused(pipe, folder)
    with path.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    assert "tables.safetensors has 67108865 bytes" in refused(pipe, folder)


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def pickles(canary: Path) -> dict[str, bytes]:
    bomb = Canary(canary)
    found = {f"protocol {p}": pickle.dumps(bomb, protocol=p) for p in range(2, 6)}
    for name, new in (("torch zip", True), ("torch legacy", False)):
        buffer = io.BytesIO()
        torch.save(bomb, buffer, _use_new_zipfile_serialization=new)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("plan.json", "{}")
    return found | {"zip": buffer.getvalue()}


def test_row_8_pickles(pipe: Any, folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    plan_file, tables = folder / "plan.json", folder / "tables.safetensors"
    good = {path: path.read_bytes() for path in (plan_file, tables)}
    contents = pickles(canary)
    for content in contents.values():
        for path in (plan_file, tables):
            path.write_bytes(content)
            assert "pickle and zip files are not read" in refused(pipe, folder)
            path.write_bytes(good[path])
        for name in ("plan.pt", "plan.pth", "plan.bin", "plan.pkl", "plan.ckpt", "noend", "x.json"):
            file = tmp_path / name
            file.write_bytes(content)
            assert "pickle and zip files are not read" in refused(pipe, file)
            assert "pickle and zip files are not read" in refused(pipe, str(file))
            file.unlink()
    assert not canary.exists()
    pickle.loads(contents["protocol 4"])  # the canary is alive
    assert canary.exists()


def test_row_8_by_name_alone(pipe: Any, folder: Path) -> None:
    for name in ("somewhere/plan.pt", "user/plan.bin", "plan.pkl", "a/b/c.PTH"):
        assert "pickle and zip files are not read" in refused(pipe, name)
    change(folder, lambda v: v.update(tables="tables.pt"))
    assert "tables.pt is a .pt file" in refused(pipe, folder)


def test_no_safetensors_file_is_taken_for_a_pickle() -> None:
    """A header of 640 bytes starts with the two bytes of a pickle."""
    refuse_pickles("tables.safetensors", (640).to_bytes(8, "little"))
    refuse_pickles("tables.safetensors", (1152).to_bytes(8, "little"))


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "other.safetensors",
        "a/tables.safetensors",
        "./tables.safetensors",
        "tables.safetensors\x00",
        "..\\tables.safetensors",
        "README.md",
        7,
        False,
    ],
)
def test_row_9_names(name: object, pipe: Any, folder: Path) -> None:
    change(folder, lambda v: v.update(tables=name))
    found = refused(pipe, folder)
    assert "plan.json: tables = " in found
    assert "needs 'tables.safetensors', the name of a file beside plan.json" in found
    assert found.isprintable()


@pytest.mark.parametrize("name", ["plan.json", "tables.safetensors"])
def test_row_9_links(name: str, plan: PatternPlan, pipe: Any, folder: Path, tmp_path: Path) -> None:
    inside, outside = folder / name, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    assert "is a link to a file outside of the folder" in refused(pipe, folder)
    inside.unlink()
    inside.symlink_to("nowhere")
    assert f"has no {name}" in refused(pipe, folder)
    inside.unlink()
    inside.symlink_to(inside)
    assert "could not be read" in refused(pipe, folder)
    inside.unlink()
    outside.rename(folder / f"real {name}")
    inside.symlink_to(f"real {name}")  # inside the folder: nothing wrong with it
    assert PatternPlan.from_pretrained(folder) == plan


def test_row_9_the_cache_of_the_hub(plan: PatternPlan, folder: Path, tmp_path: Path) -> None:
    """A folder that `snapshot_download` returned holds links into its cache."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(folder.iterdir()):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert PatternPlan.from_pretrained(snapshot) == plan


def test_row_9_what_is_no_plain_file(pipe: Any, folder: Path) -> None:
    path = folder / "plan.json"
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    assert "is not a plain file" in refused(pipe, folder)
    path.unlink()
    path.mkdir()
    assert "is not a plain file" in refused(pipe, folder)


def test_places_without_a_plan(pipe: Any, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no plan.json" in refused(pipe, empty)
    assert "has no plan.json" in refused(pipe, str(empty))
    assert "is a file, and no .json; give the folder" in refused(pipe, str(folder / "README.md"))
    assert "Give the folder that holds both" in refused(pipe, str(folder / "plan.json"))
    for missing in (tmp_path / "none", Path("user/plan"), "./none", "a/b/c", "~/no/such", "a/"):
        assert "There is no plan at" in refused(pipe, missing)
    assert "could not be read" in refused(pipe, "x/" + "y" * 5000)
    assert "could not be read" in refused(pipe, "~no-such-user-here/plan")
    for text in ("a\0/b", "a\0b", "y" * 5000, ""):
        with pytest.raises(sparsediff.SparseError):
            pipe.enable_sparse_attention(text)


@pytest.mark.parametrize("kind", ["offline", "missing", "gated", "broken"])
def test_row_11_the_hub_says_no(
    kind: str, pipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def failing(error: type[Exception], text: str) -> Any:
        def download(*_: Any, **__: Any) -> Any:
            answer = type("Answer", (), {"status_code": 404, "headers": {}, "request": None})()
            try:
                raise error(text, response=answer)  # type: ignore[call-arg]
            except TypeError:
                raise error(text) from None

        return download

    wanted = {
        "offline": (errors.LocalEntryNotFoundError, "no connection"),
        "missing": (errors.RepositoryNotFoundError, "401 Client Error"),
        "gated": (errors.GatedRepoError, "ask for access first"),
        "broken": (ConnectionError, "reset by peer"),
    }
    error, text = wanted[kind]
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing(error, text))
    found = refused(pipe, "somebody/some-plan")
    assert "somebody/some-plan" in found
    assert text in found
    assert error.__name__ in found
    with pytest.raises(PlanError) as caught:
        PatternPlan.from_pretrained("somebody/some-plan")
    assert isinstance(caught.value.__cause__, error)


def test_row_11_really_offline(pipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = refused(pipe, "somebody/some-plan")
    assert "plan.json of 'somebody/some-plan' could not be read from the Hub" in found
    assert "could not be read from the Hub (" in refused(pipe, "--/..")


class FakeHub:
    """hf_hub_download over a folder, with a commit and sizes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.revisions: list[str | None] = []
        self.size: int | None = None
        self.downloads: list[str] = []

    def __call__(self, repo: str, name: str, *, dry_run: bool = False, **options: Any) -> Any:
        self.revisions.append(options["revision"])
        path = self.folder / name
        if not dry_run:
            self.downloads.append(name)
            return str(path)
        size = path.stat().st_size if self.size is None else self.size
        return type("Info", (), {"file_size": size, "commit_hash": "c0ffee"})()


def test_a_plan_on_the_hub(
    plan: PatternPlan, pipe: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(folder)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub)
    assert PatternPlan.from_pretrained("somebody/plan", revision="v1") == plan
    assert hub.revisions[0] == "v1"
    assert set(hub.revisions[1:]) == {"c0ffee"}  # both files of one commit
    session = pipe.enable_sparse_attention("somebody/plan")
    assert session.method.name == "sparse-vdit"
    session.disable()
    hub.size, hub.downloads = 17 * 2**20, []
    assert "plan.json has 17825792 bytes" in refused(pipe, "somebody/plan")
    assert hub.downloads == []


def test_push_to_hub(plan: PatternPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            sent.update(options)

            class Address(str):
                pass

            address = Address(f"https://example.org/{repo_id}")
            address.repo_id = repo_id  # type: ignore[attr-defined]
            return address

        def upload_folder(self, *, folder_path: Path, **options: Any) -> None:
            sent.update(options)
            for path in Path(folder_path).iterdir():
                (tmp_path / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    address = plan.push_to_hub("somebody/plan", private=True)
    assert address == "https://example.org/somebody/plan"
    assert (sent["repo_id"], sent["private"], sent["exist_ok"]) == ("somebody/plan", True, True)
    assert PatternPlan.from_pretrained(tmp_path) == plan
    assert 'enable_sparse_attention("somebody/plan")' in (tmp_path / "README.md").read_text()
    with pytest.raises(PlanError, match="needs a Hub id"):
        plan.push_to_hub("plan")

    def no(*_: Any, **__: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(Api, "create_repo", no)
    with pytest.raises(PlanError, match=r"'somebody/plan' could not be saved on the Hub .*offline"):
        plan.push_to_hub("somebody/plan")


def test_row_12_where_a_plan_cannot_be_saved(
    plan: PatternPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below" / "it"):
        with pytest.raises(PlanError, match=r"cannot be made: .*file is a file"):
            plan.save_pretrained(path)
    assert file.read_text() == "x"
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PlanError, match="is not writable"):
        plan.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
