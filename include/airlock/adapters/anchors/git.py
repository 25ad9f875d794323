"""An anchor in a git repository: one commit per checkpoint on a branch of its own."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from airlock.adapters.anchors.git_command import STALE_SECONDS, Git
from airlock.adapters.anchors.rules import (
    conflict,
    in_order,
    is_newest,
    locked,
    sync_folder,
    tampered,
    to_publish,
)
from airlock.adapters.system import SystemClock, writing
from airlock.core.errors import UnavailableError
from airlock.ports import Clock

BRANCH = re.compile(r"[A-Za-z0-9_](?!.*(\.\.|//|\.lock(/|$)|[./]$|/\.))[A-Za-z0-9._/-]*")
"""Names that every git takes, and no command mistakes for an option."""

_INCOMING = "refs/airlock/incoming"


class GitAnchor:
    """Checkpoints on a branch of a repository of this machine, bare or not.

    Each is a commit with one file, on top of the one before: rewriting an old one changes the id of every
    commit after it. The branch moves by git's own compare-and-swap, and no work tree is touched.
    Packing the objects (``git gc``) is left to the owner of the repository.
    """

    def __init__(
        self,
        repository: Path,
        *,
        branch: str = "airlock",
        every_seconds: int = 60,
        now: Clock | None = None,
    ) -> None:
        self._repository = repository
        self._ref = f"refs/heads/{branch}"
        self._now = now or SystemClock()
        self.name = _name(f"git://{repository}", branch)
        self.every_seconds = every_seconds

    def history(self) -> list[str]:
        """All kept checkpoints, oldest first."""
        return _history(git := self._git(), git.tip(self._ref))

    def latest(self) -> str | None:
        """The newest checkpoint."""
        git = self._git()
        tip = git.tip(self._ref)
        return git.notes([tip])[0] if tip else None

    def publish(self, note: str, *, after: str | None) -> str:
        """Add a commit; the receipt is its id."""
        to_publish(note)
        git = self._git()
        with _alone(git.folder, self.name):
            tip = git.tip(self._ref)
            newest = git.notes([tip])[0] if tip else None
            if is_newest(note, newest, after, self.name):
                return f"commit {tip}"
            commit = git.make_commit(note, tip, self._now.now_us() // 1_000_000)
            self._advance(git, tip, commit)
        return f"commit {commit}"

    def _advance(self, git: Git, tip: str | None, commit: str) -> None:
        lock = git.folder / f"{self._ref}.lock"
        _remove_stale([lock])
        arguments = ("update-ref", self._ref, commit, tip or "")
        result = git.ask(*arguments)
        if result.code and _remove_stale([lock]):
            result = git.ask(*arguments)
        if result.code:
            if git.tip(self._ref) != tip:
                raise conflict(self.name)
            raise git.failed("update-ref", result)
        with writing(lock.parent):
            # Git leaves that out, and a power cut could take the new commit off the branch again.
            if lock.parent.is_dir():
                sync_folder(lock.parent)

    def _git(self) -> Git:
        inner = self._repository / ".git"
        folder = inner if os.access(inner, os.F_OK) else self._repository
        # The settings of a user cannot break it: they are not needed where nothing leaves the machine.
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        git = Git(folder, self.name, alone)
        result = git.ask("rev-parse", "--path-format=absolute", "--git-common-dir")
        if result.code != 0:
            raise UnavailableError(
                f"this is no git repository: {result.message}",
                where=str(self._repository),
                fix=f"mount the disk, or create it once: git init --bare '{self._repository}'",
            )
        return Git(Path(os.fsdecode(result.output).rstrip("\n")), self.name, alone)


class RemoteGitAnchor:
    """Checkpoints on a branch of a repository behind SSH, HTTPS or a path that is used like a remote.

    A private copy of the branch is kept in ``cache``. It is also a memory: a remote branch that does not
    continue what this machine saw there before is an integrity error. Pushes are never forced, so a
    rejected one means that somebody else was there first. Credentials are those of git itself: an
    SSH agent or key, a credential helper, ``GIT_ASKPASS``.
    """

    def __init__(
        self,
        remote: str,
        cache: Path,
        *,
        branch: str = "airlock",
        every_seconds: int = 60,
        now: Clock | None = None,
    ) -> None:
        self._remote = remote
        self._ref = f"refs/heads/{branch}"
        self._now = now or SystemClock()
        self._cache = cache / hashlib.sha256(f"{remote} {branch}".encode()).hexdigest()[:16]
        self.name = _name(f"git+{remote}", branch)
        self.every_seconds = every_seconds

    def history(self) -> list[str]:
        """All kept checkpoints, oldest first."""
        with self._fetched() as (git, tip):
            return _history(git, tip)

    def latest(self) -> str | None:
        """The newest checkpoint."""
        with self._fetched() as (git, tip):
            return git.notes([tip])[0] if tip else None

    def publish(self, note: str, *, after: str | None) -> str:
        """Push a commit; the receipt is its id."""
        to_publish(note)
        with self._fetched() as (git, tip):
            newest = git.notes([tip])[0] if tip else None
            if is_newest(note, newest, after, self.name):
                return f"commit {tip}"
            commit = git.make_commit(note, tip, self._now.now_us() // 1_000_000)
            self._push(git, tip, commit)
            git.run("update-ref", self._ref, commit, tip or "")
        return f"commit {commit}"

    def _push(self, git: Git, tip: str | None, commit: str) -> None:
        options = ("--quiet", "--no-signed", "--recurse-submodules=no", "--")
        result = git.ask("push", *options, self._remote, f"{commit}:{self._ref}")
        if result.code == 0:
            return
        # What came of it is seen there: its words differ, and the answer to a push that worked may get lost.
        found = self._remote_tip(git)
        if found == tip:
            raise git.failed("push", result)
        if found != commit:
            raise conflict(self.name)

    @contextmanager
    def _fetched(self) -> Iterator[tuple[Git, str | None]]:
        git = Git(self._cache, self.name)
        with writing(self._cache):
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(self._cache, self.name):
            _remove_stale(self._cache.rglob("*.lock"))
            if git.ask("rev-parse", "--git-dir").code != 0:
                git.run("init", "--quiet", "--bare", "--template=", str(self._cache))
            yield git, self._fetch(git)

    def _fetch(self, git: Git) -> str | None:
        known, found = git.tip(self._ref), self._remote_tip(git)
        if found == known:
            return known
        rewritten = tampered(
            f"the branch does not continue commit {known}, which stood there before; where that was meant, "
            f"delete {self._cache}",
            self.name,
        )
        if found is None:
            raise rewritten
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--")
        git.run("fetch", *options, self._remote, f"+{self._ref}:{_INCOMING}")
        tip = git.run("rev-parse", "--verify", _INCOMING)
        if known and git.ask("merge-base", "--is-ancestor", known, tip).code != 0:
            raise rewritten
        git.run("update-ref", self._ref, tip, known or "")
        return tip

    def _remote_tip(self, git: Git) -> str | None:
        for row in git.run("ls-remote", "--quiet", "--", self._remote, self._ref).splitlines():
            commit, _, ref = row.partition("\t")
            if ref == self._ref:
                return commit
        return None


def _name(url: str, branch: str) -> str:
    return f"{url}?branch={branch}"


def _history(git: Git, tip: str | None) -> list[str]:
    if tip is None:
        return []
    listed = git.ask("rev-list", "--reverse", "--first-parent", tip)
    if listed.code != 0:
        raise git.unreadable("commits", listed)
    return in_order(git.notes(listed.output.decode().split()), git.where)


@contextmanager
def _alone(folder: Path, where: str) -> Iterator[None]:
    """One publisher of this machine at a time."""
    with writing(folder):
        lock = os.open(folder / "airlock-anchor", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with locked(lock, where):
            yield
    finally:
        os.close(lock)


def _remove_stale(locks: Iterable[Path]) -> bool:
    """Remove locks that a killed git left behind."""
    removed = False
    for lock in locks:
        with writing(lock):
            try:
                age = time.time() - lock.stat().st_mtime
            except FileNotFoundError:
                continue
            if age > STALE_SECONDS:
                lock.unlink(missing_ok=True)
                removed = True
    return removed
