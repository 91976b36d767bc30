"""PatternPlan: the patterns of a model, saved, shared and loaded (Sparse-vDiT, arXiv 2506.03065)."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import PlanError, PlanMismatchError, SparseError
from sparsediff.plans.evidence import Evidence
from sparsediff.plans.file_limits import CARD, PLAN, TABLES, check_size
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.plans.hub_plan import HubPlan
from sparsediff.plans.lone_plan import LonePlan
from sparsediff.plans.model_card import model_card
from sparsediff.plans.plan_document import PlanDocument, Tables, read_document
from sparsediff.plans.plan_folder import PlanFolder
from sparsediff.plans.plan_source import PlanSource, looks_like_hub_id, plan_source
from sparsediff.plans.plan_summary import plan_lines, plan_summary
from sparsediff.plans.stripe_rows import pack, unpack
from sparsediff.plans.table_document import rows_of
from sparsediff.search import PatternTable, SparseVDiT
from sparsediff.search.patterns.pattern import Stripe

logger = logging.getLogger("sparsediff")


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternPlan:
    """The pattern of every head of one model, with what tells it from other models.

    ``table`` the patterns; ``fingerprint`` the model they were searched on; ``evidence`` how, and what
    to expect. On disk: ``plan.json``, ``tables.safetensors`` if a head has a stripe, and a model card.

    Raises SparseError when table and fingerprint have other layers or heads.
    """

    table: PatternTable
    fingerprint: Fingerprint
    evidence: Evidence = field(default_factory=Evidence)

    def __post_init__(self) -> None:
        if self.table.heads != self.fingerprint.heads:
            raise SparseError(
                f"The patterns are for {_counted(self.table.heads)}, the fingerprint's model has "
                f"{_counted(self.fingerprint.heads)}; needs the same, layer by layer."
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> PatternPlan:
        """Read a plan from a folder, a file that `to_json` made, or a Hub id such as "user/plan".

        Everything is checked before it is used, and no pickle is ever opened. Raises PlanError that
        says what is wrong and where.
        """
        return cls._read(plan_source(name, revision=revision, token=token))

    @classmethod
    def from_json(cls, content: bytes, *, label: str = "given") -> PatternPlan:
        """Read what `to_json` made, as `from_pretrained` does; errors call it `label`."""
        return cls._read(LonePlan(label=label, content=content))

    @classmethod
    def _read(cls, source: PlanSource) -> PatternPlan:
        try:
            document = read_document(source.read(PLAN), _tables_of(source))
            return cls(
                table=document.table, fingerprint=document.fingerprint, evidence=document.evidence
            )
        except SparseError as error:
            kept = error.__cause__  # the Hub's own error, if there is one
            raise PlanError(f"The plan {source.label} cannot be used: {error}") from kept

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the plan and its model card into a folder, which is made if need be.

        A plan and a card that are there are replaced, each file whole or not at all. Raises PlanError
        when the folder cannot be written, or the plan is larger than a plan may be.
        """
        PlanFolder(path=Path(folder).expanduser()).write(self._files())

    def to_json(self) -> bytes:
        """The plan as one JSON text in UTF-8 that needs no other file.

        Raises PlanError when it is larger than a plan may be.
        """
        document = self._document()
        return _checked(document, document.text(None, alone=True).encode(), _none_beside)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a sparsediff plan",
    ) -> str:
        """Upload the plan to a model repository of the Hub and return its address.

        The repository is made if there is none, `private` or as the account does by default. Raises
        PlanError with the Hub's own words.
        """
        if not looks_like_hub_id(repo_id):
            raise PlanError(f"repo_id={repo_id!r}: needs a Hub id such as user/plan.")
        with tempfile.TemporaryDirectory() as folder:
            PlanFolder(path=Path(folder)).write(self._files(repo_id))
            hub = HubPlan(repo_id=repo_id, revision=revision, token=token)
            return hub.upload(Path(folder), private=private, message=commit_message)

    def method(self, **options: Any) -> SparseVDiT:
        """The method that runs these patterns; `options` are its fields, such as ``strict=False``.

        Raises SparseError for an option that contradicts the plan, or that it does not have.
        """
        return SparseVDiT(table=self.table).with_options(**options)

    def check(self, target: Any) -> None:
        """Raise PlanMismatchError, naming every difference, unless the plan fits `target`.

        It is a pipeline, a model, or the Fingerprint of one. Other weights, such as a fine-tune's, are
        only warned of: the patterns are likely good enough.
        """
        found = target if isinstance(target, Fingerprint) else Fingerprint.of(target)
        differences = self.fingerprint.differences(found)
        if differences:
            raise PlanMismatchError(
                f"This plan was searched on another model. {'; '.join(differences)}. Search a plan "
                f"for this model: sparsediff search MODEL."
            )
        mine, theirs = self.fingerprint.weights, found.weights
        if None not in (mine, theirs) and mine != theirs:
            logger.warning(
                "this plan was searched on other weights (%s) than this model has (%s); it works, "
                "but the expected quality is that of the others",
                str(mine)[:12],
                str(theirs)[:12],
            )

    def to_dict(self) -> dict[str, Any]:
        """A short summary as JSON-ready values; the patterns themselves are in the files."""
        return plan_summary(self.table, self.fingerprint, self.evidence)

    def __str__(self) -> str:
        return "\n".join(plan_lines(self.table, self.fingerprint, self.evidence))

    def _files(self, repo_id: str | None = None) -> dict[str, bytes]:
        """Contents by name, in the order in which they are to be written."""
        rows = rows_of(self.table)
        files = {TABLES: pack(rows)} if rows else {}
        digest = sha256(files[TABLES]).hexdigest() if rows else None
        document = self._document()
        content = _checked(
            document,
            document.text(digest).encode(),
            lambda _, blocks: unpack(files[TABLES], blocks=blocks),
        )
        files[CARD] = model_card(self.to_dict(), self.evidence, repo_id).encode()
        return files | {PLAN: content}

    def _document(self) -> PlanDocument:
        return PlanDocument(table=self.table, fingerprint=self.fingerprint, evidence=self.evidence)


def _checked(document: PlanDocument, content: bytes, tables: Tables) -> bytes:
    """`content`, once it is sure that it is read back as the document it was made of."""
    check_size(PLAN, len(content))
    if read_document(content, tables) != document:
        raise PlanError("This plan would not be read back as it is; please report this.")
    return content


def _none_beside(digest: str | None, blocks: int) -> Sequence[Stripe]:
    raise PlanError("This plan would not be read back without another file; please report this.")


def _tables_of(source: PlanSource) -> Tables:
    def tables(digest: str | None, blocks: int) -> Sequence[Stripe]:
        content = source.read(TABLES)
        stripes = unpack(content, blocks=blocks)
        if sha256(content).hexdigest() != digest:
            raise PlanError(
                f"{TABLES} is not the file that {PLAN} was written with: it was changed, or saving "
                f"was cut off. Save the plan again."
            )
        return stripes

    return tables


def _counted(heads: tuple[int, ...]) -> str:
    return f"{len(heads)} layers with {sum(heads)} heads"
