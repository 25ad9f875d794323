"""Folders in the evidence store: each file by its content, and the list of them by its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from airlock.core.errors import IntegrityError, InvalidInputError
from airlock.core.manifest import FileRef
from airlock.ports import EvidenceStore


def keep_folder(evidence: EvidenceStore, root: Path, paths: Sequence[Path]) -> list[FileRef]:
    """Copy files below ``root`` into the store and identify them."""
    return [
        FileRef(
            path=path.relative_to(root).as_posix(),
            sha256=evidence.put_file(path),
            size=path.stat().st_size,
        )
        for path in paths
    ]


def write_folder(evidence: EvidenceStore, files: Sequence[FileRef], target: Path) -> Path:
    """Write kept files into ``target``, each verified.

    Raises:
        IntegrityError: a name leaves the folder, or a file was changed on disk.
    """
    for file in files:
        path = target / file.path
        if not path.resolve().is_relative_to(target.resolve()):
            raise IntegrityError(f"file name {file.path!r} leaves the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(evidence.get(file.sha256))
    target.mkdir(parents=True, exist_ok=True)
    return target


def regular_files(
    root: Path, *, where: str, maximum: int, what: str, fix: str, skip: Callable[[Path], bool] | None = None
) -> list[Path]:
    """Every file below a folder, sorted; nothing but plain files with readable names may be there.

    Raises:
        InvalidInputError: there are more than ``maximum``, or one is a link, special, or has no usable name.
    """
    paths = sorted(_walk(root, skip))
    if len(paths) > maximum:
        raise InvalidInputError(f"{what} has {len(paths)} files", where=where, fix=fix)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise InvalidInputError(
                f"{what} holds {path.name!r}, which is a link or special file",
                where=where,
                fix="keep plain files only",
            )
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"{what} holds a file whose name is no text: {path.name!r}",
                where=where,
                fix="keep files with plain names",
            ) from error
    return paths


def _walk(folder: Path, skip: Callable[[Path], bool] | None) -> Iterator[Path]:
    for path in folder.iterdir():
        if skip is not None and skip(path):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, skip)
        else:
            yield path
