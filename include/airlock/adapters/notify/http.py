"""What the channels over HTTP share: one request, errors in words."""

from __future__ import annotations

from typing import Any

import httpx

from airlock.core.errors import InvalidInputError, UnavailableError

TIMEOUT_SECONDS = 10.0


def send(
    where: str, method: str, url: str, *, expected: tuple[int, ...] = (200, 201, 202, 204), **kwargs: Any
) -> Any:
    """Send a request and return the parsed answer, or ``None`` when it has no body.

    Raises:
        UnavailableError: no answer, too many requests, or a failure over there: it is worth trying again.
        InvalidInputError: the other side refuses it, and will again.
    """
    try:
        response = httpx.request(
            method, url, timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False, **kwargs
        )
    except httpx.HTTPError as error:
        raise UnavailableError(f"no answer: {error}", where=where, fix="it is tried again") from error
    if response.status_code in expected:
        try:
            return response.json() if response.content else None
        except ValueError:
            return None
    text = f"it answers {response.status_code}: {response.text[:300]}"
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else 0.0
        raise UnavailableError(text, where=where, fix="it is tried again", seconds=seconds)
    raise InvalidInputError(text, where=where, fix="correct the channel in config/notifications.yaml")
