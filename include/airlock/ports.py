"""What the use cases need from the world, as protocols. ``adapters/`` has the real things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from airlock.core.audit import Event, Kind, Recorded
from airlock.core.base import Value
from airlock.core.notices import Notice
from airlock.core.policy import IsolationLevel
from airlock.core.rules import Engine


class Clock(Protocol):
    """Time comes in here, so that nothing else asks for it."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""


class AuditStore(Protocol):
    """Append-only record of everything that happened."""

    def migrate(self) -> None:
        """Create or upgrade the schema; safe to repeat."""

    def append(self, event: Event) -> Recorded:
        """Record an event durably before returning.

        The same key with the same content (whatever its time) is recorded once and the first record
        is returned.

        Raises:
            ConflictError: the key stands with other content; a ``conflict`` event was recorded.
            UnavailableError: the store does not answer or its disk is full; nothing was recorded.
            InvalidInputError: the event is too large or not canonical.
        """

    def events(
        self,
        *,
        release_id: str | None = None,
        workload: str | None = None,
        version: str | None = None,
        actor: str | None = None,
        kinds: Sequence[Kind] = (),
        key: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """Events in the order they were recorded, narrowed by what is given.

        ``since_us`` is included and ``until_us`` is not; both are claimed times.
        """

    def confirm(self, recorded: Recorded) -> None:
        """Wait until an event is in the signed log and anchored outside the database.

        Raises:
            UnavailableError: it is not yet, within the time that the deployment gives; the event stays
                recorded, and asking again goes on waiting.
        """


class Anchor(Protocol):
    """A place outside the audit store's database that keeps its checkpoints.

    Whoever can change the database must not be able to change this place: that is what it is for. The
    newest checkpoint here is what the log may never fall behind.
    """

    @property
    def name(self) -> str:
        """What people read and receipts record: the URL without secrets."""

    @property
    def every_seconds(self) -> int:
        """How often a checkpoint is published here; 0 means each one, before a critical event counts."""

    def history(self) -> list[str]:
        """All kept checkpoints as signed notes, oldest first; empty where nothing was published yet.

        Raises:
            UnavailableError: the place does not answer.
            IntegrityError: what is kept there is no sequence of notes.
        """

    def latest(self) -> str | None:
        """The newest checkpoint, or ``None`` where nothing was published yet; errors as ``history``."""

    def publish(self, note: str, *, after: str | None) -> str:
        """Keep a checkpoint durably and return a receipt: where in this place it stands.

        Args:
            note: the signed note.
            after: what ``latest`` answered before. If another checkpoint stands there by now nothing is
                written (compare-and-swap), so that a restored or second sequencer cannot roll it back.
                Publishing the newest one again is free.

        Raises:
            ConflictError: another checkpoint was published in between.
            UnavailableError: the place does not answer, refuses, or is full; nothing was half written.
        """


class EvidenceStore(Protocol):
    """Content-addressed files: the SHA-256 of the content is the name."""

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their digest; storing twice is free."""

    def put_file(self, path: Path) -> str:
        """Store a file's content and return its digest."""

    def get(self, digest: str) -> bytes:
        """Return the bytes.

        Raises:
            NotFoundError: nothing is stored under the digest.
            IntegrityError: what is stored does not have this digest any more.
        """

    def path(self, digest: str) -> Path:
        """A local path with the verified content, to be read only."""


class ModelVersion(Value):
    """A version in the registry.

    Attributes:
        user: who registered it, as the registry writes it; empty where it does not say.
    """

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    user: str = ""


class RunFacts(Value):
    """What the registry knows about the training run of a version.

    Attributes:
        users: who made it, as the registry and the tags ``author`` and ``data_author`` write it, and what
            each of them did.
    """

    params: dict[str, str] = {}
    commit: str = ""
    datasets: dict[str, str] = {}
    users: list[tuple[str, str]] = []


class Registry(Protocol):
    """The model registry. Aliases and tags carry the state (requirement R-1)."""

    def version(self, name: str, version: str) -> ModelVersion:
        """Return a version.

        Raises:
            NotFoundError: the model or version does not exist.
            UnavailableError: the registry does not answer.
        """

    def champion(self, name: str) -> ModelVersion | None:
        """The version in production, or ``None`` before the first release."""

    def run(self, run_id: str) -> RunFacts:
        """Parameters, git commit and data sets (name → digest) of a run; nothing when there is none."""

    def download(self, name: str, version: str, target: Path) -> None:
        """Copy the files of a version into ``target``, without loading them."""

    def add_version(
        self,
        name: str,
        folder: Path,
        *,
        key: str,
        beside: str = "",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Register a folder as a version and return its number; one ``key`` gives one. Safe to repeat.

        Args:
            name: registered model, which is made where there is none.
            folder: files of the model.
            key: what tells this registration from every other; kept as a tag of the version.
            beside: run of another version, in whose experiment the new run is put.
            params: parameters to log with the run.
            tags: tags of the version, without Airlock's prefix.
        """

    def set_champion(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag the version, then move the champion alias to it. Safe to repeat."""

    def quarantine(self, name: str, version: str, reason: str) -> None:
        """Tag the version as quarantined. Safe to repeat."""

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag a version without moving anything. Safe to repeat."""

    def clear_champion(self, name: str, tags: Mapping[str, str]) -> None:
        """Tag the model, then take the champion alias away: nothing is in production. Safe to repeat."""


class SandboxRequest(Value):
    """A job for the sandbox: named inputs are made readable, everything else is out of reach.

    ``packages`` is a folder of packages that come before those of the worker; empty for none.
    """

    job: dict[str, Any]
    inputs: dict[str, str]
    seconds: float
    memory_mb: int
    output_mb: int
    require_network_isolation: bool
    require_level: IsolationLevel = "process"
    packages: str = ""


class SandboxResult(Value):
    """What came out: files in the output folder, captured text, and which isolation there was.

    Attributes:
        isolation: what was in force, in words.
        level: the highest level of isolation all of which was in force.
        attempts: what the job wanted and was not given, in words; empty for an honest job.
        seconds: how long the process ran.
        stdout: what it printed, its middle left out when it is long.
        stderr: the same for errors.
    """

    isolation: list[str]
    level: IsolationLevel = "none"
    attempts: list[str] = []
    seconds: float
    stdout: str
    stderr: str


class Sandbox(Protocol):
    """Runs untrusted code away from credentials, network and files (requirement G-8)."""

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        """Run the job and leave its files in ``output``.

        Raises:
            SandboxError: the job raised, was killed, ran out of time, memory or output.
        """


class PolicyEngine(Engine, Protocol):
    """Evaluates the rules of a policy, and single conditions."""

    def evaluate(self, condition: str, facts: Mapping[str, Any]) -> bool:
        """True or false.

        Raises:
            ConfigurationError: the condition cannot be used.
            InvalidInputError: a missing fact, a type error, or a result that is not a boolean.
        """


class Notifier(Protocol):
    """A channel that people are told through."""

    @property
    def name(self) -> str:
        """Its name in ``config/notifications.yaml``."""

    def post(self, notice: Notice, *, thread: str) -> str:
        """Tell people, and return how the channel refers to the message.

        ``thread`` is the reference of the message it belongs under, or empty.

        Raises:
            UnavailableError: the channel does not answer now; it is worth trying again.
            InvalidInputError: the channel refuses this, and will again.
        """

    def update(self, reference: str, notice: Notice) -> None:
        """Say what became of a message; errors as ``post``."""
