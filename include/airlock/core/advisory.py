"""Known vulnerabilities of packages, in the form in which the OSV database publishes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value

Severity = Literal["low", "medium", "high", "critical", "unknown"]

SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical", "unknown")
"""From the lightest; what nobody rated is taken for the worst."""


class VersionRange(Value):
    """Versions from ``introduced`` on, before ``fixed`` or up to and with ``last_affected``."""

    introduced: str = "0"
    fixed: str = ""
    last_affected: str = ""


class Advisory(Value):
    """One vulnerability of one package.

    Attributes:
        package: its name as PyPI normalises it (PEP 503).
        versions: affected versions that are named one by one.
    """

    id: str
    package: str
    summary: str = ""
    severity: Severity = "unknown"
    ranges: list[VersionRange] = []
    versions: list[str] = []


class AdvisoryBook(Value):
    """What was known of some packages, and how fresh that is.

    Attributes:
        sha256: digest of the file or folder it was read from.
        modified: time of its newest entry, ISO 8601 in UTC.
        age_days: days between that and when it was read.
        entries: how many advisories the whole database has.
        advisories: those of the packages that were asked about.
    """

    sha256: str
    modified: str
    age_days: Annotated[float, Field(ge=0)]
    entries: Annotated[int, Field(ge=1)]
    advisories: list[Advisory]
