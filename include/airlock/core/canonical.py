"""One way to turn a value into bytes, and bytes into a digest.

RFC 8785 (JSON Canonicalization Scheme) gives every JSON value exactly one byte string, so a
digest can be recomputed by anyone, in any language, years later.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

import msgspec
import rfc8785

from airlock.core.errors import InvalidInputError

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL; behind an escaped backslash ``u0000`` is only text."""


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 bytes of ``value``.

    Raises:
        InvalidInputError: for NaN, infinities, integers of 2**53 and more, lone surrogates,
            NUL characters (PostgreSQL cannot store them) and types JSON has no word for.
    """
    try:
        data = _ENCODE(value) if _plain(value) else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInputError(
            f"value has no canonical JSON form: {error}",
            fix="use strings, finite numbers below 2**53, booleans, null, lists and string-keyed objects",
        ) from error
    # Nearly no text has one, and looking for plain bytes takes a fiftieth of the time.
    if b"\\u0000" in data and _NUL.search(data):
        raise InvalidInputError("text contains a NUL character", fix="remove the NUL character")
    return data


_ENCODE = msgspec.json.Encoder(order="sorted").encode
"""A hundredth of the time; for ``_plain`` values it writes the same bytes."""


def _plain(value: Any) -> bool:
    """Whether RFC 8785 and ``_ENCODE`` agree: no fractions, nothing sorted by UTF-16 units."""
    kind: type = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_FIRST_UNSAFE < value < _FIRST_UNSAFE)
    if kind is dict:
        # Loops, and texts passed over at once: every event goes through here, and generators are slow.
        for key, item in value.items():
            if type(key) is not str or not key.isascii() or not (type(item) is str or _plain(item)):
                return False
        return True
    return kind is list and all(_plain(item) for item in value)


def storable(text: str) -> str:
    """Text as it can be recorded: what neither UTF-8 nor PostgreSQL can hold becomes U+FFFD.

    For texts of other programs, such as errors, which must be kept whatever they say.
    """
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def sha256(data: bytes) -> bytes:
    """SHA-256 of ``data``, 32 bytes."""
    return hashlib.sha256(data).digest()


def sha256_hex(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``: the name of a manifest, policy or decision."""
    return sha256_hex(canonical_json(value))


def parse_json(data: bytes | str) -> Any:
    """Parse JSON strictly: duplicate keys, NaN and infinities are errors, not surprises.

    Law: what ``canonical_json`` wrote is read back as a value with the same canonical bytes.

    Raises:
        InvalidInputError: when the text is not strict JSON.
    """

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("duplicate key")
        return result

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(
            data,
            object_pairs_hook=no_duplicates,
            parse_constant=no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not strict JSON: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def _whole(text: str) -> int | float:
    """An integer; a float where canonical JSON wrote one without an exponent, from 2**53 up to 1e21."""
    value = int(text)
    if not _FIRST_UNSAFE <= abs(value) < _FIRST_EXPONENT:
        return value
    return float(value) if rfc8785.dumps(float(value)) == text.encode() else value


_FIRST_UNSAFE, _FIRST_EXPONENT = 2**53, 10**21
