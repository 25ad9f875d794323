"""Every error Airlock raises on purpose, as one tree.

    AirlockError
    ├── ConfigurationError      a YAML file or setting is wrong
    ├── NotFoundError           an unknown workload, version, release, file
    ├── InvalidInputError       a data set, artifact or request that cannot be judged
    ├── IntegrityError          a digest does not match what was recorded
    ├── UnavailableError        MLflow, Airflow, the audit store or the disk does not answer
    ├── SandboxError            untrusted code misbehaved, or no sandbox could be had
    ├── RefusedError            the rules say no: approval or promotion refused
    └── ConflictError           somebody else did it first

Each carries what happened, where, and how to fix it, because the person who reads it has
to act on it: ``str(error)`` is the text shown in the terminal, the task log and the audit.
"""

from __future__ import annotations

from collections.abc import Sequence


class AirlockError(Exception):
    """What happened, where, and how to fix it.

    Args:
        what: one sentence, no trailing period.
        where: file, field, release or table it is about.
        fix: what the reader can do now.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" [{self.where}]"
        if self.fix:
            text += f". How to fix it: {self.fix}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling by default, and Airflow's
        # supervisor and pytest-xdist both carry exceptions between processes.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(cls: type[AirlockError], what: str, where: str, fix: str) -> AirlockError:
    return cls(what, where=where, fix=fix)


class ConfigurationError(AirlockError):
    """A configuration file or setting is wrong."""

    exit_code = 2


class NotFoundError(AirlockError):
    """Something was named that does not exist."""

    exit_code = 2


class InvalidInputError(AirlockError):
    """Data, an artifact or a request that cannot be judged."""


class IntegrityError(AirlockError):
    """A digest does not match what was recorded."""


class UnavailableError(AirlockError):
    """A system Airlock depends on does not answer. Retrying may help.

    Args:
        what: as for every error.
        where: as for every error.
        fix: as for every error.
        seconds: how long it asks to be left alone, where it says so.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", seconds: float = 0) -> None:
        super().__init__(what, where=where, fix=fix)
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_unavailable, (self.what, self.where, self.fix, self.seconds))


def _rebuild_unavailable(what: str, where: str, fix: str, seconds: float) -> UnavailableError:
    return UnavailableError(what, where=where, fix=fix, seconds=seconds)


class SandboxError(AirlockError):
    """Untrusted code misbehaved, or no sandbox could be had.

    Args:
        what: as for every error.
        where: as for every error.
        fix: as for every error.
        attempts: what the code wanted and was not given, in words.
        output: the end of what the code printed.
    """

    def __init__(
        self, what: str, *, where: str = "", fix: str = "", attempts: Sequence[str] = (), output: str = ""
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.attempts = tuple(attempts)
        self.output = output

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_sandbox, (self.what, self.where, self.fix, self.attempts, self.output))


def _rebuild_sandbox(what: str, where: str, fix: str, attempts: tuple[str, ...], output: str) -> SandboxError:
    return SandboxError(what, where=where, fix=fix, attempts=attempts, output=output)


class RefusedError(AirlockError):
    """The rules say no."""

    exit_code = 3


class ConflictError(AirlockError):
    """Somebody else did it first, or the same key was used for other content."""
