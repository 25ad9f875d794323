"""Routine events while the database does not answer: on this machine's disk, replayed later.

One file for each event, named by the SHA-256 of its content and renamed into place after fsync: a
record is whole or not there, and a damaged one is recognised by its name. A file stays until an
anchored checkpoint covers its event.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from airlock.adapters.evidence import write_durably
from airlock.core.audit import Event, Kind, Recorded
from airlock.core.canonical import sha256_hex
from airlock.core.errors import AirlockError, ConflictError, InvalidInputError, UnavailableError
from airlock.ports import AuditStore

MAX_RECORDS = 100_000
AT_ONCE = 1000
_SHARE = 100
"""Of the room that is left one process takes this part before it counts again."""

_RECORD = ".event"
_DAMAGED = ".damaged"


@dataclass(frozen=True)
class Replay:
    """What a replay did: events that stand in the store, files removed, files that are no event."""

    replayed: int
    removed: int
    damaged: tuple[Path, ...]


class Spool:
    """A folder of events that wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._recorded: dict[str, list[Recorded]] = {}
        self._room = 0

    def keep(self, event: Event) -> None:
        """Keep an event durably; the same event twice is one file.

        Raises:
            UnavailableError: the disk is full, the folder is not writable, or too much waits already.
        """
        data = event.to_bytes()
        self._take_room()
        # Written also where it stands: who wrote it may not have waited for the disk yet.
        write_durably(self.folder / f"{sha256_hex(data)}{_RECORD}", data, mode=0o600)

    def _take_room(self) -> None:
        """Refuse when the spool is full; as others fill it too, it is counted more often the fuller it is."""
        if self._room < 1:
            free = MAX_RECORDS - len(self._files(_RECORD))
            if free < 1:
                raise UnavailableError(
                    f"{MAX_RECORDS} events wait in the spool already",
                    where=str(self.folder),
                    fix="start the database of the audit store; the sequencer then empties the spool",
                )
            self._room = free // _SHARE
        self._room -= 1

    def waiting(self) -> list[Path]:
        """Files of events that wait, the oldest first.

        Raises:
            UnavailableError: the folder cannot be read.
        """
        return self._oldest_first(_RECORD)

    def damaged(self) -> list[Path]:
        """Files that are no event any more; somebody has to look at them. Errors as ``waiting``."""
        return self._oldest_first(_DAMAGED)

    def _oldest_first(self, ending: str) -> list[Path]:
        found = []
        for path in self._files(ending):
            with suppress(FileNotFoundError):  # a replay removed it
                found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _files(self, ending: str) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.name.endswith(ending)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnavailableError(
                f"the spool cannot be read: {error.strerror}",
                where=str(self.folder),
                fix="let this user read and write the folder, or choose another one in AIRLOCK_SPOOL_DIR",
            ) from error

    def read(self, path: Path) -> Event:
        """Read one file.

        Raises:
            InvalidInputError: the content is not what ``keep`` wrote.
        """
        data = path.read_bytes()
        if sha256_hex(data) + _RECORD != path.name:
            raise InvalidInputError("a spooled event is damaged", where=str(path))
        event = Event.from_bytes(data)
        if not event.kind.spoolable:
            raise InvalidInputError(f"no event of the kind {event.kind} is ever spooled", where=str(path))
        return event

    def replay(self, store: AuditStore, is_safe: Callable[[Recorded], bool]) -> Replay:
        """Put the oldest waiting events into the store, and remove files whose event is safe.

        A part at a time: events that are critical now must not wait for a long backlog. What this process
        has put into the store is remembered and not sent again.

        An event that conflicts with a recorded one leaves a ``conflict`` event in the store and is as safe
        as that. Damaged files are renamed and stay; files that cannot be read stay as they are.

        Raises:
            UnavailableError: the store does not answer; everything stays.
        """
        replayed = removed = 0
        damaged: list[Path] = []
        safe = True
        for path in self.waiting():
            recorded = self._recorded.get(path.name)
            if recorded is None and replayed < AT_ONCE and (event := self._event(path, damaged)) is not None:
                recorded = self._recorded[path.name] = _append(store, event)
                replayed += 1
            if recorded is None:
                continue
            # The log is in order: once an event is not safe yet, nor are those that were appended later.
            safe = safe and all(is_safe(entry) for entry in recorded)
            if safe:
                path.unlink(missing_ok=True)
                self._recorded.pop(path.name, None)  # another thread may replay too
                removed += 1
        return Replay(replayed, removed, tuple(damaged))

    def _event(self, path: Path, damaged: list[Path]) -> Event | None:
        """Read a waiting file; ``None`` when it is gone or cannot be read."""
        try:
            return self.read(path)
        except FileNotFoundError:
            return None  # another replay removed it
        except OSError:
            damaged.append(path)
        except (AirlockError, ValueError):
            with suppress(FileNotFoundError):  # another replay did it
                damaged.append(path.rename(path.with_suffix(_DAMAGED)))
        return None


def _append(store: AuditStore, event: Event) -> list[Recorded]:
    """Record an event, and return what has to be safe before its file may go."""
    try:
        return [store.append(event)]
    except ConflictError:
        conflicts = store.events(kinds=[Kind.CONFLICT], release_id=event.release_id)
        return [entry for entry in conflicts if entry.event.data.get("key") == event.key]
