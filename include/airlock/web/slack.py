"""The endpoint that Slack calls when somebody presses a button or sends a form.

Who presses is believed because Slack signed the request, and counts as the person of ``people.yaml`` with
that Slack account. The answer then goes through Airflow's own API in that person's name, so that it is
bound by the same rules as one given in Airflow.
"""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.nonces import Nonces
from airlock.core.audit import Kind
from airlock.core.canonical import sha256_hex
from airlock.core.errors import AirlockError, InvalidInputError, RefusedError
from airlock.core.people import Person
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release, open_case
from airlock.services.watch import answer_release
from airlock.web.access import client_of

if TYPE_CHECKING:
    from slack_sdk import WebClient

router = APIRouter()
log = logging.getLogger(__name__)

MAX_BYTES = 300_000
MAX_AGE_SECONDS = 300
"""Slack's own advice for how old a signed request may be."""

_POOL = ThreadPoolExecutor(max_workers=4, thread_name_prefix="airlock-slack")
"""Slack waits three seconds; what Airflow has to do goes on behind its back."""


@router.post("/slack/actions", include_in_schema=False)
async def actions(request: Request) -> Response:
    """A pressed button or a sent form. Only Slack can call it: the signature is checked, not a login."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise InvalidInputError("the request is too large", fix="Slack sends none of this size")
    deployment = open_deployment()
    payload = verified(deployment, bytes(body), dict(request.headers))
    return await _in_pool(lambda: handle(deployment, payload))


async def _in_pool(work: Any) -> Response:
    import asyncio

    answer: dict[str, Any] | None = await asyncio.get_running_loop().run_in_executor(_POOL, work)
    return Response(
        content=b"" if answer is None else json.dumps(answer).encode(), media_type="application/json"
    )


def verified(deployment: Deployment, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """The payload of a request that Slack signed just now, and that was not seen before.

    Raises:
        RefusedError: no secret is configured; the signature, the age or the workspace is wrong; or it is a
            replay.
        InvalidInputError: it is signed and still no payload.
    """
    from slack_sdk.signature import SignatureVerifier

    settings = deployment.settings
    secret = settings.slack_signing_secret.get_secret_value()
    if not secret or not settings.slack_team:
        raise RefusedError(
            "Slack is not set up here",
            where="AIRLOCK_SLACK_SIGNING_SECRET, AIRLOCK_SLACK_TEAM",
            fix="set both, as docs/slack.md says",
        )
    stamp, signature = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
    # The library's own check of the age takes a time in the future, which a replay could use for long.
    if not stamp.isdecimal() or abs(time.time() - int(stamp)) > MAX_AGE_SECONDS:
        raise RefusedError("the request is too old", fix="check the clocks; press the button again")
    try:
        signed = SignatureVerifier(secret).is_valid(body, stamp, signature)
    except UnicodeDecodeError:  # Slack sends text
        signed = False
    if not signed:
        raise RefusedError("the request is not signed by Slack")
    if not Nonces(settings.home / "slack-seen.db").first(sha256_hex(signature.encode()), MAX_AGE_SECONDS * 2):
        raise RefusedError("the request was seen before")
    try:
        payload: dict[str, Any] = json.loads(parse_qs(body.decode())["payload"][0])
        team = payload["team"]["id"]
        payload["user"]["id"], payload["type"]  # must be there
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidInputError("the request holds no payload of Slack") from error
    if team != settings.slack_team or payload["user"].get("team_id", team) != team:
        raise RefusedError("the request comes from another Slack workspace")
    return payload


@dataclass(frozen=True)
class Place:
    """The seat a button stands for, and where the button is."""

    release_id: str
    seat: int
    channel: str
    ts: str


def handle(deployment: Deployment, payload: dict[str, Any]) -> dict[str, Any] | None:
    """Do what was asked, or say to the person alone why not; returns what Slack gets as its answer."""
    kind, account = payload["type"], str(payload["user"]["id"])
    if kind == "view_submission":
        return _submitted(deployment, payload, account)
    if kind != "block_actions":
        return None
    for action in payload.get("actions") or []:
        if str(action.get("action_id", "")).startswith("airlock_"):
            _pressed(deployment, payload, account, action)
    return None


def _pressed(deployment: Deployment, payload: dict[str, Any], account: str, action: dict[str, Any]) -> None:
    try:
        value = json.loads(action["value"])
        place = Place(
            release_id=str(value["release"]),
            seat=int(value["seat"]),
            channel=str(payload["channel"]["id"]),
            ts=str((payload.get("message") or {}).get("ts", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("the button names no seat") from error
    what = action["action_id"].removeprefix("airlock_")
    try:
        person = _person(deployment, account)
        if what == "approve":
            _POOL.submit(_answer, deployment, place, person, account, choice="approve")
        elif what in ("reject", "ask"):
            _slack(deployment).views_open(
                trigger_id=payload["trigger_id"], view=form(what, place, deployment)
            )
    except AirlockError as error:
        _whisper(deployment, place, account, error)


def _submitted(deployment: Deployment, payload: dict[str, Any], account: str) -> dict[str, Any] | None:
    view = payload.get("view") or {}
    what = str(view.get("callback_id", "")).removeprefix("airlock_")
    try:
        meta = json.loads(view["private_metadata"])
        place = Place(str(meta["release"]), int(meta["seat"]), str(meta["channel"]), str(meta["ts"]))
        text = str(view["state"]["values"]["text"]["text"]["value"] or "").strip()
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("the form names no seat") from error
    try:
        person = _person(deployment, account)
        least = open_case(deployment, place.release_id).policy.approval.minimum_comment
        if what == "reject" and len(text) < least:
            problem = f"Say what has to change, in at least {least} characters."
            return {"response_action": "errors", "errors": {"text": problem}}
        if what == "ask":
            _ask(deployment, place, person, text)
        elif what == "reject":
            _POOL.submit(_answer, deployment, place, person, account, choice="reject", comment=text)
    except AirlockError as error:
        return {"response_action": "errors", "errors": {"text": str(error.what)[:140]}}
    return None


def _person(deployment: Deployment, account: str) -> Person:
    person = deployment.config.people().find_slack(account)
    if person is None:
        raise RefusedError(
            "your Slack account belongs to nobody in people.yaml",
            where=account,
            fix="ask for `slack` in your entry of config/people.yaml, or answer in Airflow",
        )
    return person


def _answer(
    deployment: Deployment, place: Place, person: Person, account: str, *, choice: str, comment: str = ""
) -> None:
    """Answer in the name of the person; the courier updates the message once it is audited."""
    try:
        client: AirflowClient = client_of(deployment, person)
        answer_release(
            deployment,
            client,
            place.release_id,
            user=person.user,
            choice=choice.title(),
            comment=comment,
            seat=place.seat + 1,
        )
    except AirlockError as error:
        _whisper(deployment, place, account, error)
    except Exception:
        # Nobody waits for this thread: without a word here the person would believe it had counted.
        log.exception("an answer from Slack could not be passed on")
        _whisper(
            deployment, place, account, RefusedError("the answer could not be passed on; answer in Airflow")
        )


def _ask(deployment: Deployment, place: Place, person: Person, text: str) -> None:
    """Record a question to the submitter, and show it in the thread."""
    release = find_release(deployment, place.release_id)
    if not text:
        raise InvalidInputError("the question is empty", fix="write what you want to know")
    digest = sha256_hex(f"{person.user}\x1f{text}".encode())[:16]
    deployment.record(
        Kind.QUESTION_ASKED,
        f"release/{release.release_id}/question/{digest}",
        actor=person.user,
        release_id=release.release_id,
        workload=release.workload,
        version=release.version,
        data={"seat": place.seat, "question": text[:4000]},
    )


def _whisper(deployment: Deployment, place: Place, account: str, error: AirlockError) -> None:
    """Say to one person alone why something did not count. Slack may be away; then Airflow's log has it."""
    from slack_sdk.errors import SlackClientError

    text = f"This did not count: {error.what}" + (f"\n{error.fix}" if error.fix else "")
    try:
        _slack(deployment).chat_postEphemeral(channel=place.channel, user=account, text=text[:2900])
    except (SlackClientError, OSError) as problem:
        log.warning("cannot tell %s in Slack that %s: %s", account, error.what, problem)


def _slack(deployment: Deployment) -> WebClient:
    from slack_sdk import WebClient

    settings = deployment.settings
    token = settings.slack_token.get_secret_value()
    return WebClient(token=token, base_url=settings.slack_api, timeout=5, retry_handlers=[])


_TITLES = {"reject": ("Reject", "What has to change"), "ask": ("Ask", "Your question to the submitter")}


def form(what: str, place: Place, deployment: Deployment) -> dict[str, Any]:
    """The form that opens for ``reject`` and ``ask``: one required field."""
    title, label = _TITLES[what]
    least = open_case(deployment, place.release_id).policy.approval.minimum_comment if what == "reject" else 1
    meta = {"release": place.release_id, "seat": place.seat, "channel": place.channel, "ts": place.ts}
    return {
        "type": "modal",
        "callback_id": f"airlock_{what}",
        "private_metadata": json.dumps(meta),
        "title": {"type": "plain_text", "text": title},
        "submit": {"type": "plain_text", "text": title},
        "close": {"type": "plain_text", "text": "Back"},
        "blocks": [
            {
                "type": "input",
                "block_id": "text",
                "label": {"type": "plain_text", "text": label},
                "element": {
                    "type": "plain_text_input",
                    "action_id": "text",
                    "multiline": True,
                    "min_length": max(1, least),
                    "max_length": 3000,
                },
            }
        ],
    }
