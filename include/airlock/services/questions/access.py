"""Who asked."""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Mapping

from airlock.core.audit import Kind, Recorded
from airlock.core.canonical import storable
from airlock.services.deployment import Deployment


def record_access(
    deployment: Deployment, question: str, arguments: Mapping[str, object], *, asker: str = ""
) -> Recorded:
    """Record that somebody reads the audit store or evidence, with what they asked (requirement E-6).

    ``asker`` is a user that Airflow has authenticated. Without one, the name is what the environment says
    and can be chosen; ``uid`` is what the kernel says of the process that reads.

    Raises:
        UnavailableError: neither the store nor the spool takes the event.
    """
    asked = {name: _short(value) for name, value in arguments.items() if value not in (None, "", [], ())}
    return deployment.record(
        Kind.AUDIT_READ,
        f"read/{deployment.clock.now_us()}/{secrets.token_hex(8)}",
        actor=storable(asker)[:200] if asker else _asker(),
        workload=str(asked.get("workload", "")),
        version=str(asked.get("version", "")),
        data={"question": question, "arguments": asked, "uid": os.getuid()},
    )


def _short(value: object) -> str | list[str]:
    if isinstance(value, list | tuple):
        return [storable(str(item))[:200] for item in value[:100]]
    return storable(str(value))[:200]


def _asker() -> str:
    try:
        return storable(getpass.getuser())[:200]
    except (OSError, KeyError, ImportError):  # in a container, a user id can have no name
        return "unknown"
