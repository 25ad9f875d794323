"""Tells what a model file is, by its content first and its name second. Nothing is ever loaded.

A file is what its bytes say: ``model.skops`` that begins like a pickle is a pickle.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from .pickles import Pickle, read_pickle

MAXIMUM_EXPANDED = 1 << 30
"""Bytes that an archive may hold when unpacked; sklearn's largest models are below it."""

MAXIMUM_MEMBERS = 20_000
_MAXIMUM_RATIO = 200  # schema.json shrinks to a tenth, a bomb to a thousandth
_MAXIMUM_UNPACKED = 64 << 20  # of a compressed pickle, whose calls stand near its beginning
_MAXIMUM_TEXT = 64 << 20
_MAXIMUM_HEADER = 100_000_000  # of safetensors, as its own library limits it

_MAXIMUM_SIGNATURE = 4 << 20
_SIGNATURE_NAMES = {"model.sig", "model.sig.json"}
_TEXT_NAMES = {"MLmodel", "registered_model_meta", "README", "LICENSE"}
_TEXT_SUFFIXES = {".yaml", ".yml", ".txt", ".json", ".md"}
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"}
_SOURCE_SUFFIXES = {".py", ".pyc", ".pyo", ".pyd", ".so", ".ipynb", ".sh", ".pth"}
_PYTHON_TAG = re.compile(r"!!python/|tag:yaml\.org,2002:python/")


@dataclass
class Detected:
    """What a file is, and what is wrong with it."""

    format: str
    problem: str = ""
    untrusted_types: list[str] = field(default_factory=list)
    pickle_globals: list[str] = field(default_factory=list)


def detect(path: Path, name: str) -> Detected:
    """What the file ``path``, called ``name`` in its artifact, is."""
    with path.open("rb") as stream:
        start = stream.read(64)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _zip(path)
        if (unpack := _unpacker(start)) is not None:
            return _compressed(path, unpack)
        if start.startswith(b"\x93NUMPY"):
            stream.seek(0)
            return _numpy(stream)
        stream.seek(0)
        if (pickle := read_pickle(stream)) is not None:
            return _pickle(pickle)
    return _other(path, PurePosixPath(name), start)


def _other(path: Path, name: PurePosixPath, start: bytes) -> Detected:
    if start.startswith(b"{L") and b"learner" in start:
        return Detected("ubj")
    if start.startswith(b"tree\nversion="):
        return _text(path, "lightgbm-text")
    if _is_safetensors(path, start):
        return Detected("safetensors")
    return _by_name(path, name)


def _by_name(path: Path, name: PurePosixPath) -> Detected:
    """Text has no magic number, and a name that promises more than the content holds is a finding."""
    found = Detected("unknown")
    if name.suffix == ".onnx":
        found = Detected("onnx") if _is_onnx(path) else Detected("unknown", "is called .onnx, but is none")
    elif name.suffix in _SOURCE_SUFFIXES:
        found = Detected("python")
    elif name.suffix in _PICKLE_SUFFIXES:
        found = Detected("pickle", "is called a pickle, but cannot be read as one")
    elif name.suffix == ".skops":
        found = Detected("unknown", "is called .skops, but is no skops archive: it may be truncated")
    elif name.name in _SIGNATURE_NAMES:
        found = _signature(path)
    elif name.name in _TEXT_NAMES or name.suffix in _TEXT_SUFFIXES:
        found = _text(path, "text")
    return found


def _pickle(pickle: Pickle, problem: str = "") -> Detected:
    if not pickle.complete:
        problem = problem or "the pickle cannot be read to its end: it may do more than is listed"
    return Detected("pickle", problem, pickle_globals=pickle.names)


def _text(path: Path, format_name: str) -> Detected:
    if path.stat().st_size > _MAXIMUM_TEXT:
        return Detected("unknown", "is too large for a text file")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return Detected("unknown", "is called a text file, but is not UTF-8 text")
    if any(ord(character) < ord(" ") and character not in "\t\n\r\f" for character in text):
        return Detected("unknown", "is called a text file, but holds control characters")
    if _PYTHON_TAG.search(text):
        return Detected("text", "is YAML that asks Python to build objects (!!python/…)")
    return Detected(format_name)


def _signature(path: Path) -> Detected:
    """A sigstore bundle, as model-signing writes it."""
    if path.stat().st_size > _MAXIMUM_SIGNATURE:
        return Detected("unknown", "is too large for a signature")
    try:
        bundle = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return Detected("unknown", "is called a signature, but is no JSON")
    kind = bundle.get("mediaType") if isinstance(bundle, dict) else None
    if isinstance(kind, str) and "sigstore" in kind:
        return Detected("signature")
    return Detected("unknown", "is called a signature, but is no sigstore bundle")


def _zip(path: Path) -> Detected:
    """A zip archive: skops, or something that hides pickles, such as a file of PyTorch."""
    try:
        with zipfile.ZipFile(path) as archive:
            if problem := _bomb(archive, path.stat().st_size):
                return Detected("unknown", problem)
            names = {member.filename for member in archive.infolist()}
            if "schema.json" in names:
                return _skops(path, archive)
            pickle = _pickle_inside(archive)
    except Exception as error:  # noqa: BLE001 - a hostile archive can make zipfile raise anything
        return Detected("unknown", f"is a broken or truncated archive: {error}")
    return pickle or Detected("unknown", "is a zip archive of no known kind")


def _bomb(archive: zipfile.ZipFile, size: int) -> str:
    """Why an archive must not be unpacked; from its index alone, which `zipfile` does not read past."""
    members = archive.infolist()
    expanded = sum(member.file_size for member in members)
    if len(members) > MAXIMUM_MEMBERS:
        return f"is an archive of {len(members)} files, more than {MAXIMUM_MEMBERS}"
    if expanded > MAXIMUM_EXPANDED:
        return f"unpacks to {expanded >> 20} MB, more than {MAXIMUM_EXPANDED >> 20} MB"
    if expanded > max(_MAXIMUM_RATIO * size, _MAXIMUM_UNPACKED):
        return f"unpacks to {expanded // max(size, 1)} times its size"
    if len({member.filename for member in members}) != len(members):
        return "is an archive that holds two files of the same name"
    if any(member.filename.startswith(("/", "..")) or "/../" in member.filename for member in members):
        return "is an archive with a path that leaves it"
    return ""


def _skops(path: Path, archive: zipfile.ZipFile) -> Detected:
    if (broken := archive.testzip()) is not None:
        return Detected("unknown", f"is an archive whose member {broken!r} is damaged")
    import skops.io

    try:
        return Detected("skops", untrusted_types=sorted(skops.io.get_untrusted_types(file=path)))
    except Exception as error:  # noqa: BLE001 - a hostile schema can make skops raise anything
        return Detected("skops", f"cannot be read by skops: {type(error).__name__}: {str(error)[:300]}")


def _pickle_inside(archive: zipfile.ZipFile) -> Detected | None:
    found: Detected | None = None
    for member in archive.infolist():
        with archive.open(member) as stream:
            start = stream.read(_MAXIMUM_UNPACKED)
        inner = _numpy(io.BytesIO(start)) if start.startswith(b"\x93NUMPY") else _maybe_pickle(start)
        if inner is not None and inner.format == "pickle":
            found = found or Detected("pickle", f"is a zip archive with the pickle {member.filename}")
            found.pickle_globals += [
                name for name in inner.pickle_globals if name not in found.pickle_globals
            ]
    return found


def _maybe_pickle(data: bytes) -> Detected | None:
    pickle = read_pickle(io.BytesIO(data))
    return None if pickle is None else _pickle(pickle)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def _unpacker(start: bytes) -> Callable[[Path], _Readable] | str | None:
    """How to unpack a compressed file; a name where Python's own library cannot."""
    if start[:1] == b"\x78" and len(start) > 1 and (start[0] << 8 | start[1]) % 31 == 0:  # RFC 1950
        return _Zlib
    for magic, found in _COMPRESSED.items():
        if start.startswith(magic):
            return found
    return None


class _Zlib:
    """Reads a zlib stream in pieces, so that a bomb is not unpacked as a whole."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._machine = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` unpacked bytes."""
        packed = self._machine.unconsumed_tail or self._file.read(1 << 16)
        return self._machine.decompress(packed, size) if packed else b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_COMPRESSED: dict[bytes, Callable[[Path], _Readable] | str] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\x00\x00": lzma.open,
    b"\x04\x22\x4d\x18": "lz4",
    b"\x28\xb5\x2f\xfd": "zstandard",
}


def _compressed(path: Path, unpack: Callable[[Path], _Readable] | str) -> Detected:
    if isinstance(unpack, str):
        return Detected("unknown", f"is compressed with {unpack}, which cannot be looked into")
    try:
        with contextlib.closing(unpack(path)) as stream:
            data = b"".join(_pieces(stream))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        return Detected("unknown", f"is a broken compressed file: {error}")
    pickle = read_pickle(io.BytesIO(data))
    if pickle is None:
        return Detected("unknown", "is a compressed file of no known kind")
    return _pickle(pickle)


def _pieces(stream: _Readable) -> Iterator[bytes]:
    left = _MAXIMUM_UNPACKED
    while left > 0 and (piece := stream.read(min(left, 1 << 20))):
        left -= len(piece)
        yield piece


def _numpy(stream: BinaryIO) -> Detected:
    """An array file: numbers, or a pickle when its elements are objects."""
    start = stream.read(12)
    length = int.from_bytes(start[8:10] if start[6:7] == b"\x01" else start[8:12], "little")
    stream.seek(10 if start[6:7] == b"\x01" else 12)
    header = stream.read(min(length, 1 << 16)).decode("latin-1")
    kind = re.search(r"'descr'\s*:\s*('[^']*'|\[.*?\])", header)
    if kind is None:
        return Detected("unknown", "is a broken array file")
    if "O" not in kind.group(1):
        return Detected("numpy")
    pickle = read_pickle(io.BytesIO(stream.read(_MAXIMUM_UNPACKED)))
    return Detected(
        "pickle",
        "is an array of Python objects, which is a pickle",
        pickle_globals=pickle.names if pickle else [],
    )


def _is_safetensors(path: Path, start: bytes) -> bool:
    length, size = int.from_bytes(start[:8], "little"), path.stat().st_size
    if start[8:9] != b"{" or not 1 < length <= min(size - 8, _MAXIMUM_HEADER):
        return False
    with path.open("rb") as stream:
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return False
    return all(isinstance(end, int) and 0 <= end <= size - 8 - length for end in ends)


def _is_onnx(path: Path) -> bool:
    """Whether the file is a protobuf message with the fields of ONNX's ModelProto, the graph among them."""
    with path.open("rb") as stream:
        left, fields = path.stat().st_size, set()
        try:
            while stream.tell() < left:
                tag = _varint(stream)
                fields.add(tag >> 3)
                if tag & 7 == 0:
                    _varint(stream)
                elif tag & 7 == 2:  # noqa: PLR2004 - wire type: length, then bytes
                    stream.seek(_varint(stream), io.SEEK_CUR)
                else:
                    return False
        except ValueError:
            return False
        complete = stream.tell() == left
    ir_version, graph = 1, 7
    return complete and {ir_version, graph} <= fields <= {*range(1, 9), 14, 20, 25, 26}


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("the file ends in a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:  # noqa: PLR2004 - the top bit says that more follows
            return value
    raise ValueError("no number is this long")
