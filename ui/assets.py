"""The style sheets, templates and scripts of the page: files beside this one."""

from __future__ import annotations

from importlib.resources import files

from sparsediff.kernels.errors import SparseError


def asset(name: str) -> str:
    """The text of a file of ``assets/``; raises SparseError when the installation lacks it."""
    path = files("sparsediff.ui") / "assets" / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SparseError(f"{name} of the app is missing; install sparsediff again.") from error


def style() -> str:
    """All style sheets of the page as one; that of the reports, for what is shown as they do."""
    pages = files("sparsediff.report_pages")
    report = "".join(
        pages.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "plan.css")
    )
    own = [asset(name) for name in ("page.css", "player.css", "look.css", "search.css", "past.css")]
    return "\n".join([f"@scope (.sd-look) {{\n{report}}}", *own])
