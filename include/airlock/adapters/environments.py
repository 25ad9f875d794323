"""Environments for models that were made with other packages than those of the worker.

An environment is a folder of packages, named by the digest of the pinned requirements and of the Python it
is for, and built once from a local folder of wheels: no index is asked, and nothing of a package runs while
it is installed, because only wheels are taken. The sandbox shows it to the job in front of the worker's own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from airlock.core.canonical import digest_of
from airlock.core.errors import InvalidInputError

_SECONDS = 900
"""A build that takes longer hangs; it only unpacks files."""

_COMPLETE = ".complete"


class Environments:
    """Builds environments and keeps them.

    Args:
        wheels: folder with the wheels that may be used.
        cache: folder where environments are kept; it may be shared by the workers of one machine.
    """

    def __init__(self, wheels: Path, cache: Path) -> None:
        self._wheels = wheels.resolve()
        self._cache = cache.resolve()

    def provide(self, pins: Sequence[tuple[str, str]]) -> Path | None:
        """A folder with these packages (name, version), or ``None`` when the worker has just these.

        Safe to call by several workers at once and after a kill: an environment is complete or not there.

        Raises:
            InvalidInputError: a wheel is missing, or the packages exclude each other.
        """
        if all(installed(name) == wanted for name, wanted in pins):
            return None
        lines = sorted({f"{name}=={wanted}" for name, wanted in pins})
        key = digest_of({"requirements": lines, "python": sys.version, "platform": sysconfig.get_platform()})
        target = self._cache / key
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel, however this process ends
            if not (target / _COMPLETE).is_file():
                self._build(lines, target)
        return target

    def _build(self, lines: Sequence[str], target: Path) -> None:
        unfinished = target.with_suffix(".unfinished")
        for left in (unfinished, target):  # of a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        unfinished.mkdir()
        options = (
            "--no-index",
            "--only-binary=:all:",
            "--no-compile",
            "--disable-pip-version-check",
            "--quiet",
        )
        pip = [sys.executable, "-I", "-m", "pip", "install", *options, "--no-input", "--no-cache-dir"]
        command = [*pip, "--find-links", str(self._wheels), "--target", str(unfinished), *lines]
        kept = {
            name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ
        }
        try:
            ended = subprocess.run(
                command,
                env={**kept, "HOME": str(unfinished), "PIP_CONFIG_FILE": os.devnull},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
            problem = ended.stderr.strip()[-500:] if ended.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"pip took longer than {_SECONDS} s"
        if problem:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise InvalidInputError(
                f"the model's own environment cannot be built: {problem}",
                where=", ".join(lines)[:500],
                fix=f"put the wheels of these packages and of what they need into {self._wheels}, or make "
                "the model with the packages of the workers",
            )
        (unfinished / _COMPLETE).write_text("\n".join(lines) + "\n")
        unfinished.replace(target)


def installed(name: str) -> str:
    """The version of a package in this process; empty when it has none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
