"""What was seen already, for a while: so that a signed request cannot be sent a second time."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from airlock.core.errors import UnavailableError


class Nonces:
    """A small SQLite file that all processes of a server share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def first(self, nonce: str, keep_seconds: float) -> bool:
        """Whether a nonce comes for the first time; from now on it does not.

        Raises:
            UnavailableError: the file cannot be written, so nobody could tell.
        """
        now = time.time()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS seen (nonce TEXT PRIMARY KEY, until REAL)")
                connection.execute("DELETE FROM seen WHERE until < ?", (now,))
                added = connection.execute(
                    "INSERT OR IGNORE INTO seen VALUES (?, ?)", (nonce, now + keep_seconds)
                )
                return added.rowcount == 1
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"requests cannot be told from their replays: {error}",
                where=str(self._path),
                fix="make room on the disk",
            ) from error
