"""Evidence store: files named by the SHA-256 of their content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from airlock.adapters.system import writing
from airlock.core.canonical import sha256_hex
from airlock.core.errors import IntegrityError, NotFoundError, UnavailableError

_DIGEST = re.compile(r"[0-9a-f]{64}")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that after a crash it is there whole or not at all.

    Raises:
        UnavailableError: the disk is full or the folder cannot be written.
    """
    with writing(path):
        is_new = not path.parent.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        if is_new:  # else a crash could take the folder away with the file in it
            _sync_folder(path.parent.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class FileEvidenceStore:
    """Evidence in a folder; ``ab/cdef…`` holds the content whose digest is ``abcdef…``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._text = os.fspath(root)

    def _name(self, digest: str) -> str:
        # The digest comes from audit events; anything else than hex could name a path outside.
        if not _DIGEST.fullmatch(digest):
            raise NotFoundError(f"{digest[:80]!r} is not a SHA-256 digest")
        return f"{self._text}/{digest[:2]}/{digest[2:]}"

    def _place(self, digest: str) -> Path:
        return Path(self._name(digest))

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their digest; storing twice is free."""
        digest = sha256_hex(data)
        place = self._place(digest)
        with writing(place):
            there = place.exists()
        if not there:
            write_durably(place, data, mode=0o444)
        return digest

    def put_file(self, path: Path) -> str:
        """Store a file's content and return its digest."""
        return self.put(path.read_bytes())

    def path(self, digest: str) -> Path:
        """A path with the verified content, to be read only."""
        place = self._place(digest)
        with self._reading(digest):
            found = hash_file(place)
        _compare(found, digest, place)
        return place

    def get(self, digest: str) -> bytes:
        """The verified bytes."""
        # Names as text and files without a buffer: a replay reads a hundred thousand.
        name = self._name(digest)
        try:
            with FileIO(name) as stream:
                data = stream.readall()
        except OSError as error:
            raise self._unreadable(digest, error) from error
        # Hashed after reading: between two reads the file could be exchanged.
        found = sha256_hex(data)
        _compare(found, digest, name)
        return data

    @contextmanager
    def _reading(self, digest: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(digest, error) from error

    def _unreadable(self, digest: str, error: OSError) -> NotFoundError | UnavailableError:
        if isinstance(error, FileNotFoundError):
            return NotFoundError(
                f"no evidence {digest}",
                where=str(self._root),
                fix="restore the evidence folder from its backup",
            )
        return UnavailableError(
            f"evidence cannot be read: {error.strerror or error}",
            where=self._name(digest),
            fix="give this user permission to read the evidence folder, or look at the file system",
        )


def _compare(found: str, digest: str, place: Path | str) -> None:
    if found != digest:
        raise IntegrityError(
            f"evidence {digest} was changed on disk",
            where=str(place),
            fix="restore this file from its backup; the change itself is an incident to investigate",
        )


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with its links as links, so that a later check can see them."""
    with writing(target):
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
