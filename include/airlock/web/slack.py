"""The endpoint that Slack calls when somebody presses a button or sends a form.

Who presses is believed because Slack signed the request, and counts as the person of ``people.yaml`` with
that Slack account. The answer then goes through Airflow's own API in that person's name, so that it is
bound by the same rules as one given in Airflow.
"""

from __future__ import annotations

import json
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.nonces import Nonces
from airlock.core.canonical import sha256_hex
from airlock.core.errors import AirlockError, InvalidInputError, NotFoundError, RefusedError
from airlock.core.people import Person
from airlock.services.approve import check_condition, own_objection, record_refusal
from airlock.services.ask import ask, reply
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release, open_case, read_decision
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
    """What a button stands for, a seat or a question, and where the button is."""

    release_id: str
    channel: str
    ts: str
    seat: int = 0
    question: str = ""

    @classmethod
    def read(cls, value: Any, *, channel: Any, ts: Any) -> Place:
        """What a button or a form carries; Slack signed it, and it is still checked like any input.

        Raises:
            ValueError, KeyError, TypeError: it names no release and seat or question.
        """
        question = str(value.get("question", ""))
        return cls(
            release_id=str(value["release"]),
            channel=str(channel),
            ts=str(ts),
            seat=0 if question else int(value["seat"]),
            question=question,
        )


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
        ts = (payload.get("message") or {}).get("ts", "")
        place = Place.read(json.loads(action["value"]), channel=payload["channel"]["id"], ts=ts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("the button names no seat") from error
    what = action["action_id"].removeprefix("airlock_")
    try:
        person = _person(deployment, account)
        if what in ("approve", "reject", "condition"):
            _refuse_early(deployment, place, person, what, str(payload.get("trigger_id", "")))
        if what == "approve":
            _POOL.submit(_answer, deployment, place, person, account, choice="approve")
        elif what in FORMS:
            _slack(deployment).views_open(
                trigger_id=payload["trigger_id"], view=form(what, place, deployment)
            )
    except AirlockError as error:
        _whisper(deployment, place, account, error)


def _refuse_early(deployment: Deployment, place: Place, person: Person, what: str, when: str) -> None:
    """Say at once that an answer would not count, instead of after somebody has filled in a form.

    Raises:
        RefusedError: it would not; recorded.
    """
    release = find_release(deployment, place.release_id)
    decision = read_decision(deployment, release)
    if decision is None:
        raise NotFoundError(f"release {place.release_id} is not decided yet")
    problem, _ = own_objection(deployment, release, decision, place.seat, person.user)
    if problem:
        choice = "reject" if what == "reject" else "approve"
        record_refusal(
            deployment, release, place.seat, user=person.user, choice=choice, problem=problem, when=when
        )
        raise RefusedError(problem, fix="another holder of the role has to answer")


def _submitted(deployment: Deployment, payload: dict[str, Any], account: str) -> dict[str, Any] | None:
    view = payload.get("view") or {}
    what = str(view.get("callback_id", "")).removeprefix("airlock_")
    try:
        meta = json.loads(view["private_metadata"])
        place = Place.read(meta, channel=meta["channel"], ts=meta["ts"])
        values = view["state"]["values"]
        text = str(values["text"]["text"]["value"] or "").strip()
        until = str(values["until"]["until"]["selected_date"] or "") if what == "condition" else ""
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("the form names no seat") from error
    try:
        person = _person(deployment, account)
        if what == "condition":
            check_condition(deployment, place.release_id, condition=text, until=until)
            words = {"condition": text, "until": until}
            _POOL.submit(_answer, deployment, place, person, account, choice="approve", **words)
        elif what == "reject":
            _check_feedback(deployment, place, text)
            _POOL.submit(_answer, deployment, place, person, account, choice="reject", comment=text)
        elif what == "ask":
            ask(deployment, place.release_id, place.seat, user=person.user, text=text)
        elif what == "reply":
            reply(deployment, place.release_id, place.question, user=person.user, text=text)
    except AirlockError as error:
        field = "until" if what == "condition" and UNTIL_WORDS.search(error.what) else "text"
        return {"response_action": "errors", "errors": {field: f"{error.what}. {error.fix}"[:140]}}
    return None


UNTIL_WORDS = re.compile("date|deadline|within")
"""What the service says when the day of a condition is wrong, and not its words."""


def _check_feedback(deployment: Deployment, place: Place, text: str) -> None:
    least = open_case(deployment, place.release_id).policy.approval.minimum_comment
    if len(text) < least:
        raise InvalidInputError(f"Say what has to change, in at least {least} characters")


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
    deployment: Deployment, place: Place, person: Person, account: str, *, choice: str, **words: str
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
            seat=place.seat + 1,
            comment=words.get("comment", ""),
            condition=words.get("condition", ""),
            until=words.get("until", ""),
        )
    except AirlockError as error:
        _whisper(deployment, place, account, error)
    except Exception:
        # Nobody waits for this thread: without a word here the person would believe it had counted.
        log.exception("an answer from Slack could not be passed on")
        _whisper(
            deployment, place, account, RefusedError("the answer could not be passed on; answer in Airflow")
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


FORMS = {
    "reject": ("Reject", "What has to change"),
    "condition": ("Approve if…", "What has to be done; the approval is revoked if it is not"),
    "ask": ("Ask", "Your question to the submitter"),
    "reply": ("Answer", "Your answer"),
}
"""Title of each form, and the label of its required field."""


def form(what: str, place: Place, deployment: Deployment) -> dict[str, Any]:
    """The form that opens for a button: required fields, so that nothing is decided without a word."""
    title, label = FORMS[what]
    rules = open_case(deployment, place.release_id).policy.approval
    least = rules.minimum_comment if what in ("reject", "condition") else 1
    named = {"question": place.question} if place.question else {"seat": place.seat}
    meta = {"release": place.release_id, **named, "channel": place.channel, "ts": place.ts}
    words = {
        "type": "plain_text_input",
        "action_id": "text",
        "multiline": True,
        "min_length": max(1, least),
        "max_length": 3000,
    }
    blocks = [_field("text", label, words)]
    if what == "condition":
        label = f"By which day (UTC), at most {rules.condition_days or 0:g} days from now"
        blocks.append(_field("until", label, {"type": "datepicker", "action_id": "until"}))
    return {
        "type": "modal",
        "callback_id": f"airlock_{what}",
        "private_metadata": json.dumps(meta),
        "title": {"type": "plain_text", "text": title},
        "submit": {"type": "plain_text", "text": "Approve" if what == "condition" else title},
        "close": {"type": "plain_text", "text": "Back"},
        "blocks": blocks,
    }


def _field(name: str, label: str, element: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "input",
        "block_id": name,
        "label": {"type": "plain_text", "text": label},
        "element": element,
    }
