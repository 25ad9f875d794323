"""The base of every value: frozen, closed to unknown fields, with a digest."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from airlock.core.canonical import canonical_json, digest_of, parse_json
from airlock.core.errors import InvalidInputError


class Value(BaseModel):
    """An immutable record. Unknown fields are errors, so a typo in YAML never passes silently."""

    # "constants" keeps a NaN inside untyped data a NaN, which canonical JSON then refuses; the default
    # would silently make it null.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")

    def to_data(self) -> dict[str, Any]:
        """The value as plain JSON data.

        Raises:
            InvalidInputError: for untyped data that JSON has no word for.
        """
        try:
            return self.model_dump(mode="json")
        except ValueError as error:  # pydantic's own errors, bytes that are not text, nesting without end
            raise InvalidInputError(
                f"value has no JSON form: {error}",
                fix="use strings, finite numbers, booleans, null, lists and objects, not nested deeply",
            ) from error

    def to_bytes(self) -> bytes:
        """The value as canonical JSON (RFC 8785)."""
        return canonical_json(self.to_data())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read back what ``to_bytes`` wrote.

        Law: ``cls.from_bytes(value.to_bytes()) == value``.
        """
        return cls.model_validate(parse_json(data))

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON, 64 hex digits."""
        return digest_of(self.to_data())
