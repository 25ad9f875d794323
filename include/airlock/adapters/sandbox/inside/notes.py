"""Notes, by Python's own account, what code of a model asked for and has no business with.

The system call filter tells that a model wanted the network; Python's audit events (PEP 578) tell whom it
wanted to talk to, which file it wanted to write, which program it wanted to start. Nothing is prevented here,
and a model that goes around Python goes around these notes: they explain, the layers of the sandbox protect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

_MAXIMUM_NOTES, _MAXIMUM_LENGTH = 20, 200
_PRIVATE = ("/tmp", "/dev")  # noqa: S108 - the job's own, or as far out of reach as the rest

_CREDENTIALS = ("/.ssh", "/.aws", "/.azure", "/.kube", "/.docker", "/.netrc", "/.pgpass", "/airflow.cfg")
_SECRETS = ("/etc/shadow", "/run/secrets", "/var/run/secrets", "/root/")

_Arguments = tuple[Any, ...]


def watch(config: dict[str, Any], pipe: int) -> None:
    """Write a line to ``pipe`` for each new kind of request, from now on and for good."""
    seen: set[str] = set()
    readable = _roots([path for kind, path in config["view"] if kind == "show"])
    own = _roots([config["work"], *_PRIVATE])
    hidden = _roots(config["hidden"])

    def opened(arguments: _Arguments) -> str:
        return _file(arguments, own, readable, hidden)

    def changed(arguments: _Arguments) -> str:
        name = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else ""
        return f"change {name}" if name.startswith("/") and not f"{name}/".startswith(own) else ""

    changes = dict.fromkeys(("os.remove", "os.rename", "os.chmod", "os.link", "os.truncate"), changed)
    tellers: dict[str, Callable[[_Arguments], str]] = {"open": opened, **changes, **_TELLERS}

    def hook(event: str, arguments: _Arguments) -> None:
        if (tell := tellers.get(event)) is None or len(seen) >= _MAXIMUM_NOTES:
            return
        try:
            note = tell(arguments)[:_MAXIMUM_LENGTH]
            if note and note not in seen:
                seen.add(note)
                os.write(pipe, note.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n")
        except Exception:  # noqa: BLE001, S110 - a note is never a reason to break a job
            pass

    sys.addaudithook(hook)


def _roots(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{path.rstrip('/')}/" for path in paths)


def _file(
    arguments: _Arguments, own: tuple[str, ...], readable: tuple[str, ...], hidden: tuple[str, ...]
) -> str:
    """Files outside the job's folder that it wants to write, and those that hold secrets to read."""
    path, mode, flags = arguments
    if not isinstance(path, str | bytes):
        return ""  # a file descriptor
    name = os.path.normpath(own[0] + text if (text := os.fsdecode(path))[:1] != "/" else text)
    inside = f"{name}/".startswith
    if inside(hidden) and not inside((own[0], *readable)):
        return f"reach {name}"
    if inside(own):
        return ""
    writes = mode is not None and any(letter in str(mode) for letter in "wax+")
    if writes or (mode is None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)):
        return f"write {name}"
    other = name.split("/")[2] if name.startswith("/proc/") else ""
    foreign = other.isdigit() and other != str(os.getpid())
    secret = inside(_SECRETS) or any(part in name for part in _CREDENTIALS)
    return f"read {name}" if foreign or (secret and not inside(readable)) else ""


def _address(arguments: _Arguments) -> str:
    address = arguments[1]
    if isinstance(address, tuple):
        return f"connect to {':'.join(str(part) for part in address[:2])}"
    return f"connect to {os.fsdecode(address)}"


_TELLERS: dict[str, Callable[[_Arguments], str]] = {
    "socket.connect": _address,
    "socket.sendto": _address,
    "socket.getaddrinfo": lambda arguments: f"look up {arguments[0]}",
    "socket.gethostbyname": lambda arguments: f"look up {arguments[0]}",
    "subprocess.Popen": lambda arguments: f"start {_words(arguments[1] or arguments[0])}",
    "os.system": lambda arguments: f"start {_words(arguments[0])}",
    "os.exec": lambda arguments: f"start {_words(arguments[0])}",
    "os.posix_spawn": lambda arguments: f"start {_words(arguments[0])}",
    "os.fork": lambda _: "fork",
    "os.forkpty": lambda _: "fork",
    "os.kill": lambda arguments: f"signal process {arguments[0]}",
}


def _words(command: object) -> str:
    if isinstance(command, list | tuple):
        return " ".join(_words(part) for part in command)
    return os.fsdecode(command) if isinstance(command, str | bytes) else str(command)
