"""The job ``scan``: what every file of an artifact is, without loading any."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .formats import Detected, detect
from .secrets import find_secrets

MAXIMUM_FILES = 10_000
_MAXIMUM_NAME = 500


def run(job: dict[str, Any], inputs: Path, output: Path) -> None:
    """Write ``scan.json``, sorted by path: the same artifact gives the same bytes."""
    root = inputs / job["artifact"]
    files = [_describe(root, path) for path in _walk(root)]
    files.sort(key=lambda file: str(file["path"]))
    report = {"files": files, "versions": {"python": sys.version.split()[0], "skops": _version("skops")}}
    (output / "scan.json").write_text(json.dumps(report, indent=1, sort_keys=True))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _walk(root: Path) -> Iterator[Path]:
    """Everything below a folder but folders; links are named and not followed."""
    count, folders = 0, [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                count += 1
                if count > MAXIMUM_FILES:
                    raise ValueError(f"the artifact holds more than {MAXIMUM_FILES} files")
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    yield Path(entry.path)


def _describe(root: Path, path: Path) -> dict[str, Any]:
    # A name that is not UTF-8, or that could act on a terminal, is shown escaped.
    plain = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
    name = plain if plain.isprintable() else plain.encode("unicode_escape").decode("ascii")
    information = path.lstat()
    if not stat.S_ISREG(information.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(information.st_mode) else "no regular file"
        return _entry(name, 0, "", Detected("unknown", f"is {kind}"))
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    found = detect(path, plain)
    secrets = find_secrets(path)
    if name != plain:
        found.problem = "has a name with control characters"
    entry = _entry(name, information.st_size, digest, found)
    return {**entry, "secrets": secrets} if secrets else entry


def _entry(name: str, size: int, digest: str, found: Detected) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": name, "size": size, "sha256": digest, "format": found.format}
    if found.problem:
        entry["problem"] = printable(found.problem)
    entry["untrusted_types"] = [printable(name) for name in found.untrusted_types]
    entry["pickle_globals"] = [printable(name) for name in found.pickle_globals]
    return entry


def printable(text: str) -> str:
    """Text from a model file, made safe to show and to store."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:_MAXIMUM_NAME]
