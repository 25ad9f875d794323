"""Days as people write them, and the moments they mean."""

from __future__ import annotations

from datetime import UTC, date, datetime

from airlock.core.errors import InvalidInputError

DAY_US = 86_400_000_000


def start_of_day(day: str) -> int:
    """The first moment of a day, UTC, in microseconds since 1970.

    Raises:
        InvalidInputError: it is no date such as 2026-03-31.
    """
    try:
        found = date.fromisoformat(day)
        start = datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"{day[:40]!r} is no date", fix="write it as 2026-03-31") from error
    return int(start) * 1_000_000


def end_of_day(day: str) -> int:
    """The moment a day is over, UTC, in microseconds since 1970; errors as ``start_of_day``."""
    return start_of_day(day) + DAY_US


def deadline(text: str) -> int:
    """The moment something has to be done by, microseconds since 1970: the end of a day, or a moment.

    Raises:
        InvalidInputError: it is neither a date such as 2026-03-31 nor a moment such as 2026-03-31T14:30.
    """
    if "T" not in text:
        return end_of_day(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text[:40]!r} is no moment", fix="write it as 2026-03-31T14:30") from error
    return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp()) * 1_000_000


def due_words(until_us: int) -> str:
    """A deadline as people wrote it: the last day, or the minute where it does not end with a day."""
    if until_us % DAY_US == 0:
        return last_day(until_us)
    return datetime.fromtimestamp(until_us / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def last_day(until_us: int) -> str:
    """The last day before a moment at which something ends."""
    return datetime.fromtimestamp(until_us / 1_000_000 - 1, tz=UTC).strftime("%Y-%m-%d")
