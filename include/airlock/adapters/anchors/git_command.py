"""The git command, cut off from hooks, prompts and whatever else could lead it elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airlock.adapters.anchors.rules import MAX_NOTE_BYTES, kept, tampered
from airlock.core.errors import AirlockError, UnavailableError
from airlock.proof import Checkpoint

FILE = "checkpoint"
"""Name of the only file in each commit."""

_SECONDS = {"fetch": 300.0, "push": 60.0, "cat-file": 300.0, "rev-list": 300.0}
_SECONDS_ELSE = 20.0
STALE_SECONDS = 5.0
"""Age from which a lock of git's is that of a killed one: a living one holds it for milliseconds."""

# Nothing of the user's may run, ask or sign here, and what is acknowledged has to be on the disk.
_CONFIG = {
    "core.hooksPath": os.devnull,
    "commit.gpgsign": "false",
    "push.gpgSign": "false",
    "push.followTags": "false",
    "gc.autoDetach": "false",
    "core.fsync": "objects,derived-metadata,reference",
    "core.fsyncMethod": "fsync",
    "core.filesRefLockTimeout": str(int((STALE_SECONDS + 1) * 1000)),
}
_KEPT = re.compile(
    r"GIT_(ASKPASS|SSH|SSH_COMMAND|SSH_VARIANT|SSL_\w+|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|(KEY|VALUE)_[0-9]+))"
)
"""Git's own variables that may reach it: those about credentials. Others could lead it elsewhere."""


@dataclass(frozen=True)
class Result:
    """How a command ended: exit code, what it printed, and what it said on one line."""

    code: int
    output: bytes
    message: str


@dataclass(frozen=True)
class Git:
    """The git command on one repository."""

    folder: Path
    where: str
    extra: dict[str, str] = field(default_factory=dict)

    def ask(self, *arguments: str, data: bytes = b"") -> Result:
        """Run a command that may fail.

        Raises:
            UnavailableError: there is no git, or it takes too long.
        """
        process = self._start(arguments)
        seconds = _SECONDS.get(arguments[0], _SECONDS_ELSE)
        try:
            output, errors = process.communicate(data, timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise UnavailableError(
                f"git {arguments[0]} took longer than {seconds:.0f} s",
                where=self.where,
                fix="check the network and that git needs no password there",
            ) from None
        return Result(process.returncode, output, _readable(errors))

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        program = shutil.which("git")
        if program is None:
            raise UnavailableError("there is no git", where=self.where, fix="install git, 2.31 or newer")
        settings = [part for name, value in _CONFIG.items() for part in ("-c", f"{name}={value}")]
        try:
            return subprocess.Popen(
                [program, f"--git-dir={self.folder}", *settings, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment() | self.extra,
                start_new_session=True,  # without a terminal nothing can ask; and it ends with its children
            )
        except OSError as error:
            raise UnavailableError(
                f"git cannot be run: {error.strerror or error}",
                where=program,
                fix="repair the installation of git",
            ) from error

    def run(self, *arguments: str, data: bytes = b"") -> str:
        """Run a command that has to work; its output.

        Raises:
            UnavailableError: it failed.
        """
        result = self.ask(*arguments, data=data)
        if result.code != 0:
            raise self.failed(arguments[0], result)
        return result.output.decode(errors="replace").strip()

    def failed(self, command: str, result: Result) -> UnavailableError:
        """The error for a command that failed."""
        full = re.search("no space left|quota|file too large", result.message, re.IGNORECASE)
        return UnavailableError(
            f"git {command} failed: {result.message or f'exit code {result.code}'}",
            where=self.where,
            fix="free disk space; nothing was half written"
            if full
            else "try the same with git by hand, as this user; it needs its credentials in this environment",
        )

    def unreadable(self, what: str, result: Result) -> AirlockError:
        """The error for content that git cannot read: damaged, unless something stopped git itself."""
        stopped = re.search(
            "permission denied|input/output error|out of memory", result.message, re.IGNORECASE
        )
        if result.code < 0 or stopped:
            return self.failed(f"reading {what}", result)
        return tampered(f"{what} cannot be read: {result.message}", self.where)

    def tip(self, ref: str) -> str | None:
        """The commit a ref stands at, or ``None`` where there is no such ref.

        Raises:
            IntegrityError: the ref cannot be read.
        """
        result = self.ask("for-each-ref", "--format=%(objectname)", ref)
        if result.code != 0 or (result.message and not result.output):
            raise self.unreadable(ref, result)
        return result.output.decode().strip() or None

    def notes(self, commits: Sequence[str]) -> list[str]:
        """The checkpoints in commits.

        Raises:
            IntegrityError: one holds none.
        """
        names = "".join(f"{commit}:{FILE}\n" for commit in commits).encode()
        sizes = self.ask("cat-file", "--batch-check=%(objecttype) %(objectsize)", data=names)
        rows = sizes.output.decode(errors="replace").splitlines()
        for row, commit in zip(rows, commits, strict=False):
            kind, _, size = row.rpartition(" ")
            if kind != "blob" or int(size) > MAX_NOTE_BYTES:
                raise tampered(f"commit {commit} holds no checkpoint", self.where)
        blobs = self.ask("cat-file", "--batch=%(objectsize)", data=names)
        if sizes.code or blobs.code or len(rows) != len(commits):
            raise self.unreadable("commits", blobs if blobs.code else sizes)
        return [kept(blob, self.where) for blob in _cut(blobs.output)]

    def make_commit(self, note: str, parent: str | None, seconds: int) -> str:
        """Store a commit with the note; no ref points to it yet."""
        blob = self.run("hash-object", "-w", "--stdin", data=note.encode())
        tree = self.run("mktree", data=f"100644 blob {blob}\t{FILE}\n".encode())
        size = Checkpoint.parse(note).size
        person = {"NAME": "Airlock", "EMAIL": "airlock@localhost", "DATE": f"@{seconds} +0000"}
        signed = {
            f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in person.items()
        }
        parents = ("-p", parent) if parent else ()
        return Git(self.folder, self.where, self.extra | signed).run(
            "commit-tree", tree, *parents, "-m", f"tree size {size}"
        )


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "AIRLOCK_", "AIRFLOW_")) or _KEPT.fullmatch(name)
    }
    return kept | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _readable(errors: bytes) -> str:
    """What git said, on one line and without names and passwords in addresses."""
    text = " ".join(errors.decode(errors="replace").split())
    return re.sub(r"://[^/@\s]+@", "://***@", text)[:500]


def _cut(output: bytes) -> Iterator[bytes]:
    """The blobs in what ``git cat-file --batch`` prints: size, newline, content, newline, each time."""
    at = 0
    while at < len(output):
        line = output.index(b"\n", at)
        end = line + 1 + int(output[at:line])
        yield output[line + 1 : end]
        at = end + 1
