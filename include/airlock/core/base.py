"""The base of every value: frozen, closed to unknown fields, with a digest."""

from __future__ import annotations

from typing import Any, Self, TypeVar

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


V = TypeVar("V", bound=Value)
_set = object.__setattr__


def trusted(kind: type[V], fields: dict[str, Any], given: set[str]) -> V:
    """A value of fields that are known to be valid, made as pydantic makes it but without checking them.

    A tenth of the time; for what comes from valid values or from bytes whose digest was verified.

    Args:
        kind: class of the value.
        fields: every field of it; the dictionary becomes the value's own.
        given: names of those that are not defaults; may be shared between values.
    """
    made = kind.__new__(kind)
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_fields_set__", given)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made
