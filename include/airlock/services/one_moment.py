"""A deployment as it stands at one moment, for a page that asks the same things many times.

Who may answer, whether a seat is filled, what state a release is in: each of these reads the release, its
case and the people. For one page they are read once, so that all of it is about the same moment. A service
that writes never gets such a deployment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airlock.services.deployment import Deployment

_READS = {"audit": "events", "evidence": "get", "config": "people"}
"""What is read again and again, by port."""


def at_one_moment(deployment: Deployment) -> Deployment:
    """The deployment, with every answer of its stores kept until it is thrown away."""
    ports = {name: _Kept(getattr(deployment, name), method) for name, method in _READS.items()}
    return replace(deployment, **cast("dict[str, Any]", ports))


class _Kept:
    """A port that gives the same answer to the same question; everything else goes through."""

    def __init__(self, port: Any, method: str) -> None:
        self._port, self._method = port, method
        self._answers: dict[tuple[Any, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return self._ask if name == self._method else found

    def _ask(self, *args: Any, **kwargs: Any) -> Any:
        named = ((name, tuple(v) if isinstance(v, list) else v) for name, v in sorted(kwargs.items()))
        asked = (*args, *named)
        if asked not in self._answers:
            self._answers[asked] = getattr(self._port, self._method)(*args, **kwargs)
        return self._answers[asked]
