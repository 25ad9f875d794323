"""Filters over everything that is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airlock.core.audit import Kind
from airlock.services.deployment import Deployment
from airlock.services.questions.reading import Line, lines_of


@dataclass(frozen=True)
class Found:
    """Events in the order they were recorded; ``cut`` when there are older ones than ``limit`` allows."""

    lines: tuple[Line, ...]
    limit: int
    cut: bool


def query(
    deployment: Deployment,
    *,
    workload: str | None = None,
    version: str | None = None,
    actor: str | None = None,
    kinds: Sequence[Kind] = (),
    since_us: int | None = None,
    until_us: int | None = None,
    release_id: str | None = None,
    limit: int = 50,
) -> Found:
    """The newest events that meet every condition, of all deployments in the store.

    Raises:
        UnavailableError: the store does not answer.
    """
    found = deployment.audit.events(
        workload=workload,
        version=version,
        actor=actor,
        kinds=kinds,
        since_us=since_us,
        until_us=until_us,
        release_id=release_id,
        limit=limit + 1,
        newest_first=True,
    )
    return Found(lines_of(deployment, found[:limit][::-1]), limit, len(found) > limit)
