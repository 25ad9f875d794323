"""What happened to a workload in production, for people: windows, actions, champions, incidents."""

from __future__ import annotations

from typing import Any

from airlock.core.audit import Event, Kind
from airlock.core.production import moment
from airlock.core.signals import SIGNALS
from airlock.reporting.production import render_history
from airlock.services.actions import ended, paused, proposal_of, sentence_of
from airlock.services.decision_changes import compared_events
from airlock.services.deployment import Deployment
from airlock.services.incidents import list_incidents
from airlock.services.monitor import evaluated
from airlock.services.moves import arrived, moves_of
from airlock.services.retrain import list_retrainings

_MOVES = {
    Kind.CHAMPION_ADOPTED: "adopted",
    Kind.PROMOTION_FINISHED: "released",
    Kind.ROLLBACK_FINISHED: "rolled back to",
}


def history(deployment: Deployment, workload_name: str) -> dict[str, Any]:
    """Everything that monitoring saw and did, from the audit store, oldest first.

    Raises:
        NotFoundError: there is no such workload.
    """
    workload = deployment.config.workload(workload_name)
    moves = moves_of(deployment, workload_name)
    stopped = paused(deployment, workload_name)
    return {
        "workload": workload_name,
        "title": workload.title,
        "owner": workload.owner,
        "champion": moves.champion or "",
        "paused": "" if stopped is None else str(stopped.data["sentence"]),
        "signals": list(SIGNALS),
        "windows": [_window(deployment, event) for event in evaluated(deployment, workload_name)],
        "champions": [_move(event) for event in moves.arrivals],
        "retrainings": [
            {"id": str(one.events[0].data["retrain"]), "state": str(one.state), "sentence": one.sentence}
            for one in reversed(list_retrainings(deployment, workload_name))
        ],
        "incidents": [
            {
                "id": one.incident_id,
                "opened": _time(one.opened_us),
                "severity": str(one.severity),
                "action": one.action,
                "state": str(one.state),
                "summary": one.summary,
            }
            for one in list_incidents(deployment, workload=workload_name)
        ],
        "changes": [
            {"sentence": str(event.data["sentence"]), "page": str(event.data["page"])}
            for event in reversed(list(compared_events(deployment, workload_name)))
        ],
    }


def page(deployment: Deployment, found: dict[str, Any]) -> str:
    """A history as a page, with its decision-change reports."""
    reports = [deployment.evidence.get(one["page"]).decode() for one in found["changes"]]
    return render_history(found, reports)


def _window(deployment: Deployment, event: Event) -> dict[str, Any]:
    proposal = proposal_of(deployment, event)
    done = None if proposal is None else ended(deployment, proposal)
    return {
        "window": str(event.data["window"]),
        "version": event.version,
        "rows": int(event.data["rows"]),
        "labelled": int(event.data["labelled"]),
        "readings": dict(event.data["readings"]),
        "sentence": str(event.data["sentence"]),
        "action": "" if proposal is None else str(proposal.data["action"]),
        "why": "" if proposal is None else sentence_of(proposal),
        "done": "" if done is None else _OUTCOMES[done.kind] + str(done.data["sentence"]),
    }


_OUTCOMES = {Kind.ACTION_TAKEN: "done: ", Kind.ACTION_DECLINED: "not done: "}


def _move(event: Event) -> dict[str, str]:
    return {
        "when": _time(event.occurred_us),
        "how": _MOVES.get(event.kind, str(event.kind)),
        "version": arrived(event),
        "by": event.actor,
        "release": event.release_id,
    }


def _time(us: int) -> str:
    return f"{moment(us):%Y-%m-%d %H:%M}"
