"""The signing key of the audit log: creation, rotation, and a new log after a loss."""

from __future__ import annotations

from airlock.adapters.audit.keys import SigningKey, new_origin, next_path, rotation_statement
from airlock.adapters.system import writing
from airlock.core.audit import Kind
from airlock.core.errors import ConflictError, RefusedError
from airlock.proof import PublicKey
from airlock.services.deployment import Deployment


def create_key(deployment: Deployment) -> PublicKey:
    """Create the signing key of a deployment, and the folder of its default anchor.

    The folder is made here and never later: an anchor that has gone missing must not begin anew.

    Raises:
        ConflictError: there is a key already.
        UnavailableError: the disk is full or the folder is not writable.
    """
    settings = deployment.settings
    key = SigningKey.generate(new_origin(settings.deployment))
    with writing(settings.anchor_root):
        settings.anchor_root.mkdir(parents=True, exist_ok=True)
    key.save(settings.signing_key)
    return key.public


def rotate_key(deployment: Deployment, *, actor: str, reason: str) -> PublicKey:
    """Let the signing key name a successor, which signs once the log has that statement.

    The sequencer puts the successor in place; repeating this before it has goes on with the same one.

    Raises:
        RefusedError: no reason is given.
        UnavailableError: the statement is not in the signed log yet; the sequencer has to run.
    """
    key = _succeed(deployment, Kind.KEY_ROTATED, name=None, actor=actor, reason=reason)
    # The first checkpoint of the new key, so that it can be pinned from now on.
    deployment.record(Kind.KEY_ADOPTED, f"key/{key.id}/adopted", actor=actor, data={"key": key.id})
    return key


def restart_log(deployment: Deployment, *, actor: str, reason: str) -> PublicKey:
    """Begin a new log that names the old one, after the end of the old one was lost.

    The events that are left stay where they are; auditors are told what the anchors hold beyond them.

    Raises:
        RefusedError: no reason is given.
        UnavailableError: the database does not answer.
    """
    name = new_origin(deployment.settings.deployment)
    return _succeed(deployment, Kind.LOG_RESTARTED, name=name, actor=actor, reason=reason)


def _succeed(deployment: Deployment, kind: Kind, *, name: str | None, actor: str, reason: str) -> PublicKey:
    if not reason.strip():
        raise RefusedError("no reason is given", fix="say why with --reason")
    path = deployment.settings.signing_key
    key = SigningKey.load(path)
    waiting = next_path(path)
    if waiting.exists():
        successor = SigningKey.load(waiting)
        if (successor.public.name == key.public.name) != (kind is Kind.KEY_ROTATED):
            raise ConflictError(
                "another change of the key is under way", where=str(waiting), fix="start the sequencer first"
            )
    else:
        successor = SigningKey.generate(name or key.public.name)
        successor.save(waiting)
    seconds = deployment.clock.now_us() // 1_000_000
    statement = rotation_statement(key, successor.public, seconds=seconds)
    data: dict[str, str | int] = {"statement": statement, "reason": reason[:1000]}
    if kind is Kind.LOG_RESTARTED:
        data["size"] = deployment.log.head().size
    deployment.record(kind, f"key/{successor.public.id}", actor=actor, data=data)
    return successor.public
