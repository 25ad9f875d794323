"""Reads a local copy of the OSV database: a folder of JSON files, one JSON line each, or the published zip.

Nothing is fetched: a deployment copies the file in as it likes. https://osv.dev publishes all of PyPI as
``PyPI/all.zip``, and its format at https://ossf.github.io/osv-schema.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airlock.core.advisory import Advisory, AdvisoryBook, Severity, VersionRange
from airlock.core.errors import InvalidInputError, NotFoundError

_REFRESH = 'copy it again: see "Known vulnerabilities" in docs/operator.md'
_MAXIMUM_ENTRY = 16 << 20
_DAY_US = 24 * 3600 * 1_000_000


def normalised(name: str) -> str:
    """A package's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_advisories(path: Path, packages: Collection[str], now_us: int) -> AdvisoryBook:
    """What the database at ``path`` knows of ``packages``.

    Raises:
        NotFoundError: there is nothing at this path.
        InvalidInputError: it is no OSV database, broken, or empty.
    """
    if not path.exists():
        raise NotFoundError("there is no advisory database", where=str(path), fix=_REFRESH)
    wanted = {normalised(name) for name in packages}
    digest, entries, newest, found = hashlib.sha256(), 0, "", []
    for name, data in _entries(path):
        digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
        entry = _parse(data, path, name)
        entries += 1
        newest = max(newest, str(entry.get("modified", "")))
        if not entry.get("withdrawn"):
            found += [one for one in _advisories(entry) if one.package in wanted]
    if not entries:
        raise InvalidInputError("the advisory database is empty", where=str(path), fix=_REFRESH)
    return AdvisoryBook(
        sha256=digest.hexdigest(),
        modified=newest,
        age_days=round(_age_days(newest, path, now_us), 3),
        entries=entries,
        advisories=sorted(found, key=lambda one: (one.package, one.id)),
    )


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each entry, in a fixed order."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                yield file.relative_to(path).as_posix(), file.read_bytes()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in sorted(archive.infolist(), key=lambda one: one.filename):
                    if member.filename.endswith(".json") and member.file_size <= _MAXIMUM_ENTRY:
                        yield member.filename, archive.read(member)
        else:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield f"line {number}", line
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"the advisory database cannot be read: {error}", where=str(path), fix=_REFRESH
        ) from error


def _parse(data: bytes, path: Path, name: str) -> dict[str, Any]:
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{name} of the advisory database is no JSON", where=str(path), fix=_REFRESH
        ) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise InvalidInputError(
            f"{name} of the advisory database is no OSV entry", where=str(path), fix=_REFRESH
        )
    return entry


def _advisories(entry: dict[str, Any]) -> Iterator[Advisory]:
    for affected in entry.get("affected") or []:
        package = affected.get("package") or {}
        if str(package.get("ecosystem", "")).split(":")[0] != "PyPI":
            continue
        yield Advisory(
            id=entry["id"],
            package=normalised(str(package.get("name", ""))),
            summary=str(entry.get("summary") or "")[:200],
            severity=_severity(entry, affected),
            ranges=[one for found in affected.get("ranges") or [] for one in _ranges(found)],
            versions=[str(version) for version in affected.get("versions") or []],
        )


def _ranges(found: dict[str, Any]) -> Iterator[VersionRange]:
    """Pairs of events; a range of git commits says nothing about versions."""
    if found.get("type") not in ("ECOSYSTEM", "SEMVER"):
        return
    introduced = ""
    for event in found.get("events") or []:
        if "introduced" in event:
            introduced = str(event["introduced"])
        elif "fixed" in event:
            yield VersionRange(introduced=introduced or "0", fixed=str(event["fixed"]))
            introduced = ""
        elif "last_affected" in event:
            yield VersionRange(introduced=introduced or "0", last_affected=str(event["last_affected"]))
            introduced = ""
    if introduced:
        yield VersionRange(introduced=introduced)


_WORDS: dict[str, Severity] = {
    "LOW": "low",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "HIGH": "high",
    "CRITICAL": "critical",
}


def _severity(entry: dict[str, Any], affected: dict[str, Any]) -> Severity:
    """The rating in words that the source of an entry gives; scores without one are not computed here."""
    for part in (entry, affected):
        word = str((part.get("database_specific") or {}).get("severity", "")).upper()
        if word in _WORDS:
            return _WORDS[word]
    return "unknown"


def _age_days(newest: str, path: Path, now_us: int) -> float:
    try:
        moment = datetime.fromisoformat(newest)
    except ValueError as error:
        raise InvalidInputError(
            "no entry of the advisory database says when it was modified", where=str(path), fix=_REFRESH
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (now_us - moment.timestamp() * 1_000_000) / _DAY_US)
