"""``airlock sequencer``: the process that signs the audit log."""

from __future__ import annotations

from airlock.cli.output import safe
from airlock.cli.process import run_until_stopped
from airlock.services.deployment import anchors_of, open_deployment
from airlock.services.sequence import Sequencer


def sequencer() -> None:
    """Put recorded events into the signed log and publish it to the anchors, until Ctrl-C.

    It alone needs the signing key. Approvals and promotions wait for it.
    """
    deployment = open_deployment()
    worker = Sequencer(deployment, anchors_of(deployment.settings))
    run_until_stopped(worker.run, f"Signing {safe(worker.origin)} with key {worker.public_key.id}.")
