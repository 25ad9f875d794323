"""Turns how a job ended into an error that names the limit it broke or the reason it gave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from airlock.adapters.sandbox.supervise import Ended, printable
from airlock.core.errors import SandboxError, UnavailableError
from airlock.ports import SandboxRequest

_MAXIMUM_REASON = 2000
_KILLED = 128
_DISK_FULL_BELOW = 8 << 20


_MAXIMUM_ATTEMPTS, _SHOWN = 50, 5


def isolation_of(ended: Ended, required: str) -> tuple[list[str], str]:
    """What the process said was in force before any code of the job ran, and which level that is."""
    try:
        report = json.loads(ended.report.partition(b"\n")[0])
    except ValueError:
        report = {}
    if report.get("refused") == "network":
        raise SandboxError(
            "the policy asks for a sandbox without network, and none can be had here",
            fix="install bubblewrap (apt install bubblewrap), or allow user namespaces or seccomp filters in "
            "the container; or set sandbox.require_network_isolation: false in the policy, which lets a "
            "malicious model send out whatever it can read",
        )
    if report.get("refused") == "level":
        raise SandboxError(
            f"the policy asks for a sandbox of level {required}, and only level {report.get('level')} can "
            "be had here",
            where=", ".join(str(claim) for claim in report.get("isolation", [])),
            fix="install bubblewrap (apt install bubblewrap), allow user namespaces and seccomp filters in "
            "the container, and run the worker on Linux; or lower sandbox.require_level in the policy",
        )
    if "isolation" not in report and not ended.stopped:
        raise SandboxError(
            "the sandbox process could not be set up",
            where=f"exit code {ended.code}",
            fix=f"see what it said: {_last(ended.stderr)}",
        )
    return [str(claim) for claim in report.get("isolation", [])], str(report.get("level", "none"))


def attempts_of(ended: Ended) -> list[str]:
    """What the job wanted and was not given, each once and in order: the same job gives the same list.

    The words of the filter come first, because they cannot be forged; those of Python's own account say
    whom, what and where.
    """
    notes = sorted({line for line in ended.notes.splitlines() if line})
    return [*ended.refused, *notes][:_MAXIMUM_ATTEMPTS]


def tried(attempts: Sequence[str]) -> str:
    """Attempts as the end of a sentence."""
    more = f" and {len(attempts) - _SHOWN} more" if len(attempts) > _SHOWN else ""
    return f"it tried to {', '.join(attempts[:_SHOWN])}{more}" if attempts else ""


def refuse_failure(request: SandboxRequest, ended: Ended, output: Path) -> None:
    """Turn everything but a clean end into an error that names the limit or the reason."""
    try:
        _refuse_failure(request, ended, output)
    except SandboxError as error:
        attempts = attempts_of(ended)
        what = f"{error.what}; {tried(attempts)}" if attempts else error.what
        printed = _last("\n".join(text for text in (ended.stdout, ended.stderr) if text.strip()))
        raise SandboxError(
            what, where=error.where, fix=error.fix, attempts=attempts, output=printed
        ) from None


def _refuse_failure(request: SandboxRequest, ended: Ended, output: Path) -> None:
    where = f"sandbox job {request.job.get('kind', '')}".strip()
    broken = {
        "time": (f"ran longer than {request.seconds:g} s", "sandbox.seconds"),
        "output": (f"wrote more than {request.output_mb} MB or too many files", "sandbox.output_mb"),
        "text": ("printed without end", ""),
        "attempts": ("did nothing but ask for what it is not given", ""),
    }
    if ended.stopped:
        what, setting = broken[ended.stopped]
        fix = f"make the model smaller, or raise {setting} in the policy" if setting else "remove the prints"
        if ended.stopped == "attempts":
            fix = "look at what the model runs: no model needs this"
        raise SandboxError(f"the job {what} and was stopped", where=where, fix=fix)
    if ended.code == 0:
        return
    if shutil.disk_usage(output).free < _DISK_FULL_BELOW:
        raise UnavailableError(
            "the job failed while the disk was full", where=str(output), fix="make room, and retry"
        )
    error = _error_file(output / "error.json")
    reason = f"{error['type']}: {error['message']}" if error else _last(ended.stderr)
    if _is_memory(ended, reason):
        raise SandboxError(
            f"the job needed more than {request.memory_mb} MB of memory",
            where=where,
            fix="make the model smaller, or raise sandbox.memory_mb in the policy",
        )
    if "File too large" in reason:
        raise SandboxError(
            f"the job wrote a file of more than {request.output_mb} MB",
            where=where,
            fix="make the outputs smaller, or raise sandbox.output_mb in the policy",
        )
    # Bubblewrap tells the signal that killed its child as shells do, in the exit code.
    killed = -ended.code if ended.code < 0 else max(ended.code - _KILLED, 0)
    if killed or not reason:
        ending = f"was killed by signal {killed}" if killed else f"ended with code {ended.code}"
        fix = (
            "out of memory, out of CPU time, or a crash in the model's own code; run it by hand with the data"
        )
        raise SandboxError(f"the job {ending}. {reason}".rstrip(". "), where=where, fix=fix)
    if error.get("type") == "JobError":  # the runner's own words, which say what to do
        raise SandboxError(error["message"], where=where)
    raise SandboxError(
        f"the job failed: {reason[:_MAXIMUM_REASON]}",
        where=where,
        fix=f"run the model by hand on this data and mend it\n{error.get('traceback', '')}".strip(),
    )


def _is_memory(ended: Ended, reason: str) -> bool:
    signs = (
        "MemoryError",
        "bad_alloc",
        "Cannot allocate memory",
        "Unable to allocate",
        "failed to map segment",
    )
    return any(sign in text for sign in signs for text in (reason, ended.stderr[-_MAXIMUM_REASON:]))


def _error_file(path: Path) -> dict[str, str]:
    """What a runner says about its own failure; written by untrusted code, so it is cut and cleaned."""
    try:
        if path.is_symlink() or path.stat().st_size > 1 << 20:
            return {}
        report = json.loads(path.read_text("utf-8", "replace"))
        error = {key: printable(str(report[key])) for key in ("type", "message", "traceback")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {**error, "message": error["message"][:_MAXIMUM_REASON], "traceback": _last(error["traceback"])}


def _last(text: str) -> str:
    """The end of a text, which in Python holds the exception."""
    return text.strip()[-_MAXIMUM_REASON:]
