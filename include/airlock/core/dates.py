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


def last_day(until_us: int) -> str:
    """The last day before a moment at which something ends."""
    return datetime.fromtimestamp(until_us / 1_000_000 - 1, tz=UTC).strftime("%Y-%m-%d")
