"""How an event stands in its table, and the exact bytes that follow from its columns.

An event is kept once: its columns are its fields, and the canonical JSON that the log signs is put together
from them. Nothing stands beside it that could say something else, and no text has two readings: but for
``data`` every field is a quoted string or a number, so that there is one way to cut the bytes into columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any

from airlock.core.audit import Event
from airlock.core.canonical import canonical_json, parse_json
from airlock.core.errors import InvalidInputError

COLUMNS = (
    "actor",
    "data",
    "deployment",
    "key",
    "kind",
    "occurred_us",
    "received_us",
    "release_id",
    "version",
    "workload",
)
"""Every column but the number of the event, in the order in which canonical JSON has them."""

NAMES = ", ".join(COLUMNS)
OF_EVENT = ", ".join(f"e.{name}" for name in COLUMNS)

Values = Sequence[Any]
"""What stands in ``COLUMNS``, in their order."""


def values_of(event: Event) -> tuple[str | int, ...]:
    """What the columns of an event hold.

    Law: ``body_of(values_of(event)) == event.to_bytes()``.

    Raises:
        InvalidInputError: as ``canonical_json``.
    """
    values = (
        event.actor,
        _data_of(event),
        event.deployment,
        event.key,
        event.kind.value,
        event.occurred_us,
        event.received_us,
        event.release_id,
        event.version,
        event.workload,
    )
    if "\0" in "".join([values[0], *values[2:5], *values[7:]]):
        event.to_bytes()  # which says what is wrong with it
    return values


def _data_of(event: Event) -> str:
    try:
        return canonical_json(event.data).decode()
    except InvalidInputError:
        # Not plain: what it becomes as JSON may be, and if it is not, the error is about the whole event.
        return canonical_json(event.to_data()["data"]).decode()


def body_of(values: Values) -> bytes:
    """The exact bytes of an event, from its columns.

    Raises:
        TypeError: a column holds no text or no whole number.
        UnicodeEncodeError: a text holds half a character.
    """
    actor, data, deployment, key, kind, occurred, received, release_id, version, workload = values
    if not (type(occurred) is type(received) is int and type(data) is str):
        raise TypeError("a column holds a value of another type")
    quote = encode_basestring
    return (
        f'{{"actor":{quote(actor)},"data":{data},"deployment":{quote(deployment)},"key":{quote(key)},'
        f'"kind":{quote(kind)},"occurred_us":{occurred},"received_us":{received},'
        f'"release_id":{quote(release_id)},"schema_version":1,"version":{quote(version)},'
        f'"workload":{quote(workload)}}}'
    ).encode()


def event_of(values: Values) -> Event:
    """The event that its columns say.

    Raises:
        InvalidInputError: its data is not strict JSON.
        ValidationError: a column holds what an event cannot.
    """
    fields = dict(zip(COLUMNS, values, strict=True))
    return Event.model_validate({**fields, "data": parse_json(fields["data"])})
