"""Rego judged by an OPA server, for those who run one.

The bundle's own files are judged, not what happens to be on the server: they are put there under a package
name that holds the policy's digest, so a release is judged by the version it is pinned to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airlock.adapters.rego.reading import PACKAGE, rules_of
from airlock.core.errors import InvalidInputError, UnavailableError
from airlock.core.policy import Policy
from airlock.core.rules import content_digest

SECONDS = 5.0
"""For one request to the server."""


class OpaServer:
    """The REST API of OPA, https://www.openpolicyagent.org/docs/rest-api. Silence denies."""

    def __init__(self, url: str, *, seconds: float = SECONDS) -> None:
        self._url = url.rstrip("/")
        self._seconds = seconds
        self._put: set[str] = set()

    def value(self, policy: Policy, facts: Mapping[str, Any]) -> Any:
        """Every rule of package ``airlock`` by name.

        Raises:
            InvalidInputError: the server refuses the files, or answers something else.
            UnavailableError: it does not answer.
        """
        package = f"{PACKAGE}_{content_digest(policy)[:32]}"
        if package not in self._put:
            self._put_files(policy, package)
        path = f"/v1/data/{package}"
        answer = self._ask("POST", path, params={"strict-builtin-errors": "true"}, json={"input": facts})
        if "result" not in answer:  # the server was started anew since the files were put there
            self._put_files(policy, package)
            answer = self._ask("POST", path, params={"strict-builtin-errors": "true"}, json={"input": facts})
        return answer.get("result")

    def _put_files(self, policy: Policy, package: str) -> None:
        for file, text in rules_of(policy.rego).items():
            self._ask("PUT", f"/v1/policies/{package}/{file}", content=renamed(text, package))
        self._put.add(package)

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        import httpx

        where = f"{self._url}{path}"
        try:
            # Redirects and proxies of the environment are not followed: facts go to this server alone.
            with httpx.Client(timeout=self._seconds, trust_env=False) as client:
                reply = client.request(method, where, **arguments)
            data = reply.json()
            if not isinstance(data, dict):
                raise ValueError("it sent no object")  # noqa: TRY301, TRY004  # handled like other nonsense
        except (httpx.HTTPError, ValueError) as error:
            raise UnavailableError(
                f"the OPA server does not answer: {error}", where=where, fix="see AIRLOCK_OPA_URL"
            ) from error
        if reply.status_code >= httpx.codes.INTERNAL_SERVER_ERROR and data.get("code") != "internal_error":
            raise UnavailableError(f"the OPA server answers {reply.status_code}", where=where)
        if reply.status_code != httpx.codes.OK:
            what = f"the OPA server refuses: {reply.status_code} {data.get('message', '')}"
            raise InvalidInputError(what, where=where)
        return data


_SKIPPED = re.compile(r'"(?:\\.|[^"\\\n])*"|`[^`]*`|#[^\n]*')


def renamed(text: str, package: str) -> str:
    """The file with package ``airlock`` called ``package``, except in text and comments."""
    parts, at = [], 0
    for match in _SKIPPED.finditer(text):
        parts += [_rename(text[at : match.start()], package), match[0]]
        at = match.end()
    return "".join([*parts, _rename(text[at:], package)])


def _rename(code: str, package: str) -> str:
    return re.sub(rf"(\bpackage\s+|\bdata\.){PACKAGE}\b", rf"\g<1>{package}", code)
