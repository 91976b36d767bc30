"""HubPlan: the files of a plan on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sparsediff.kernels.errors import PlanError
from sparsediff.plans.file_limits import check_size
from sparsediff.plans.plan_folder import read_file

Result = TypeVar("Result")


@dataclass(kw_only=True, slots=True)
class HubPlan:
    """A model repository by its id; every file is read from the revision of the first one.

    ``token`` as huggingface_hub takes it; None uses the user's login.
    """

    repo_id: str
    revision: str | None = None
    token: str | bool | None = None

    @property
    def label(self) -> str:
        """What errors call it."""
        return self.repo_id

    def read(self, name: str) -> bytes:
        """The content of a file of the plan; raises PlanError with the Hub's own words."""
        from huggingface_hub import hf_hub_download

        def download(**options: Any) -> Any:
            return hf_hub_download(
                self.repo_id, name, revision=self.revision, token=self.token, **options
            )

        found = asked_of_hub(f"{name} of {self.repo_id!r}", lambda: download(dry_run=True))
        if found.file_size is not None:
            check_size(name, found.file_size)
        self.revision = found.commit_hash
        path = Path(asked_of_hub(f"{name} of {self.repo_id!r}", download))
        try:
            return read_file(path, name)
        except OSError as error:
            raise PlanError(f"{path} could not be read: {error}") from None

    def upload(self, folder: Path, *, private: bool | None, message: str) -> str:
        """Upload the files of a folder, into a new repository if there is none; returns its address."""
        from huggingface_hub import HfApi

        def send() -> str:
            api = HfApi(token=self.token)
            created = api.create_repo(self.repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=created.repo_id,
                folder_path=folder,
                commit_message=message,
                revision=self.revision,
            )
            return str(created)

        return asked_of_hub(f"The plan {self.repo_id!r}", send, done="saved on")


def asked_of_hub(what: str, act: Callable[[], Result], done: str = "read from") -> Result:
    """What `act` gives; raises PlanError with the Hub's own words when the Hub refuses."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # The error of the HTTP client, which is httpx or httpx2 by the version of huggingface_hub.
    client_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        return act()
    except (OSError, ValueError, EntryNotFoundError, client_error) as error:
        reason = str(error).strip() or type(error).__name__
        raise PlanError(
            f"{what} could not be {done} the Hub ({type(error).__name__}): {reason} Check the "
            f"id, the network and your access, or give a local folder."
        ) from error
