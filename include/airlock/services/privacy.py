"""Erase what people wrote, keep what a law or a legal hold wants kept, and record both (requirement E-5).

The log itself is never deleted: an event holds a commitment to a text and not the text. What is erased is
the text; a recorded erasure is what tells its absence from a theft, so it is recorded first.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from airlock.adapters.audit import SqlAuditStore
from airlock.adapters.audit.store import Text
from airlock.core.audit import Kind, Recorded
from airlock.core.canonical import digest_of
from airlock.core.errors import AirlockError, IntegrityError, InvalidInputError, NotFoundError, RefusedError
from airlock.core.personal_data import find_personal_data, mask
from airlock.core.retention import Hold, Regime, holds_of
from airlock.services.deployment import Deployment
from airlock.services.releases import find_release, open_case

logger = logging.getLogger(__name__)

MAX_REASON = 500
"""Characters of a reason; it is kept for ever, so it should name a case and not tell it."""

_IN_ONE_EVENT = 500
"""Commitments in one event, so that it stays far below its limit."""

_REASONS_SHOWN = 3

_WITHOUT_TEXTS = [kind for kind in Kind if not kind.personal]


@dataclass(frozen=True)
class Standing:
    """Whether one text may be erased.

    Attributes:
        text: which.
        why: what keeps it, in words; empty when it may be erased.
        until_us: when that ends, microseconds since 1970; ``None`` when nobody can say.
    """

    text: Text
    why: str = ""
    until_us: int | None = None


@dataclass(frozen=True)
class Erasure:
    """What an erasure did, or would do.

    Attributes:
        subject: user id of the person whose texts these are.
        erased: the texts that are gone.
        kept: the texts that must stay, with the reason.
    """

    subject: str
    erased: list[Text] = field(default_factory=list)
    kept: list[Standing] = field(default_factory=list)


@dataclass(frozen=True)
class Kept:
    """What is kept of what one person wrote.

    Attributes:
        subject: user id.
        standings: the texts that are there, and whether they may be erased.
        erased: how many were erased.
        missing: how many are gone without a record of it, which `airlock audit verify` reports.
    """

    subject: str
    standings: list[Standing]
    erased: int
    missing: int


def erase(
    deployment: Deployment,
    subject: str,
    *,
    actor: str,
    reason: str,
    release_id: str | None = None,
    dry_run: bool = False,
) -> Erasure:
    """Erase what a person wrote, as far as nothing keeps it.

    It is recorded and anchored before anything is deleted. After a kill at any point another run
    finishes what was recorded, and repeating it does nothing.

    Args:
        deployment: where.
        subject: user id of the person.
        actor: user id of the person who erases.
        reason: why; kept for ever, so without personal data.
        release_id: only what was written about this release.
        dry_run: change nothing, and say what would happen.

    Raises:
        NotFoundError: the person never wrote anything, or not about this release.
        RefusedError: a legal hold or a retention period keeps all of it, or no reason is given.
        InvalidInputError: the reason is too long or holds personal data.
        UnavailableError: the database or an anchor does not answer; run it again.
    """
    request = _Request(subject, release_id, actor, _checked_reason(reason))
    if dry_run:
        return _plan(deployment, request)[0]
    return _store(deployment).alone(lambda: _erase(deployment, request))


@dataclass(frozen=True)
class _Request:
    """Who asks to erase what, and why."""

    subject: str
    release_id: str | None
    actor: str
    reason: str


def _plan(deployment: Deployment, request: _Request) -> tuple[Erasure, dict[bytes, Recorded]]:
    """What has to be erased, and for what of it that is recorded already, the record."""
    texts = _texts_of(deployment, request.subject, request.release_id)
    there = [text for text in texts if text.present]
    recorded = _recorded_erasures(deployment)
    # All are judged: that an erasure is recorded does not mean that it was allowed.
    standings = _judge(deployment, there, recorded)
    found = Erasure(
        subject=request.subject,
        erased=[standing.text for standing in standings if not standing.why],
        kept=[standing for standing in standings if standing.why],
    )
    decided = {
        text.commitment: recorded[text.commitment] for text in found.erased if text.commitment in recorded
    }
    return found, decided


def _erase(deployment: Deployment, request: _Request) -> Erasure:
    found, decided = _plan(deployment, request)
    store = _store(deployment)
    if not found.erased:
        # A run that was killed may have deleted everything but what SQLite's write-ahead log holds of it.
        store.erase([])
        if found.kept:
            raise _refusal(request.subject, found.kept)
        return found
    store.require_right_to_erase()
    for entry in {entry.event.key: entry for entry in decided.values()}.values():
        deployment.audit.confirm(entry)  # a run that was killed may not have waited for it
    fresh = sorted(text.commitment.hex() for text in found.erased if text.commitment not in decided)
    for start in range(0, len(fresh), _IN_ONE_EVENT):
        _record(deployment, request, fresh[start : start + _IN_ONE_EVENT])
    store.erase([text.commitment for text in found.erased])
    return found


def _record(deployment: Deployment, request: _Request, commitments: list[str]) -> None:
    data = {"subject": request.subject, "reason": request.reason, "commitments": commitments}
    deployment.record(
        Kind.PERSONAL_ERASED,
        f"personal/erased/{digest_of([data, request.actor, request.release_id])[:32]}",
        actor=request.actor,
        release_id=request.release_id or "",
        data=data,
    )


def reapply_erasures(deployment: Deployment) -> int:
    """Delete again what a restored backup has brought back, and return how many texts that were.

    An erasure counts when it stands in the signed log, also one of another deployment that shares it. Whoever
    may append could write an untrue one, so that what a legal hold or a retention regime keeps stays, with a
    warning. Costs next to nothing when there is nothing to do.

    Raises:
        UnavailableError: the database does not answer.
    """
    store = _store(deployment)
    recorded = _recorded_erasures(deployment)
    there = {row.commitment for row in store.personal(recorded)}
    if not there:
        return 0
    numbers = {commitment: recorded[commitment].ingest_id for commitment in there}
    in_log = deployment.log.seqs([number for number in numbers.values() if number is not None])
    back = [text for text in store.texts() if text.commitment in there]
    standings = _judge(deployment, [text for text in back if numbers[text.commitment] in in_log], recorded)
    for standing in standings:
        if standing.why:
            event = recorded[standing.text.commitment].event
            logger.error(
                "event %s says that a text of %s was erased, but %s keeps it: find out who wrote that event",
                event.key,
                standing.text.subject,
                standing.why,
            )
    allowed = [standing.text.commitment for standing in standings if not standing.why]
    if allowed:
        store.erase(allowed)
    return len(allowed)


def overview(deployment: Deployment, *, subject: str | None = None) -> list[Kept]:
    """What is kept of what people wrote, by person; never the texts themselves.

    Raises:
        NotFoundError: the person never wrote anything.
    """
    texts = _texts(deployment) if subject is None else _texts_of(deployment, subject, None)
    recorded = _recorded_erasures(deployment)
    people: dict[str, list[Text]] = {}
    for text in texts:
        people.setdefault(text.subject, []).append(text)
    return [
        Kept(
            subject=name,
            standings=_judge(deployment, [text for text in mine if text.present]),
            erased=sum(text.commitment in recorded for text in mine if not text.present),
            missing=sum(text.commitment not in recorded for text in mine if not text.present),
        )
        for name, mine in sorted(people.items())
    ]


def holds(deployment: Deployment) -> list[Hold]:
    """Every legal hold of this deployment, lifted ones too, in the order they were placed."""
    return [hold for hold, _ in _holds(deployment)]


def place_hold(
    deployment: Deployment,
    *,
    subject: str | None = None,
    release_id: str | None = None,
    workload: str | None = None,
    reason: str,
    actor: str,
) -> Hold:
    """Forbid erasing what a person wrote, or what was written about a release or a workload.

    The same hold by the same person for the same reason, while it stands, is one hold.

    Raises:
        InvalidInputError: not exactly one of the three is named, or the reason holds personal data.
        NotFoundError: nobody knows the person, release or workload; the hold would keep nothing.
        RefusedError: no reason is given.
        UnavailableError: the hold is not anchored yet; place it again.
    """
    if sum(value is not None for value in (subject, release_id, workload)) != 1:
        raise InvalidInputError(
            "a hold is about one person, one release or one workload",
            fix="name exactly one of them; place several holds for several",
        )
    wanted = Hold(
        id="",
        deployment=deployment.settings.deployment,
        subject=subject or "",
        release_id=release_id or "",
        workload=workload or "",
        reason=_checked_reason(reason),
        placed_by=actor,
        placed_us=0,
    )
    _require_known(deployment, wanted)
    return _store(deployment).alone(lambda: _place(deployment, wanted))


def _place(deployment: Deployment, wanted: Hold) -> Hold:
    alike = [(hold, entry) for hold, entry in _holds(deployment) if hold.is_like(wanted)]
    for hold, entry in alike:
        if hold.stands:
            deployment.audit.confirm(entry)
            return hold
    facts = [wanted.subject, wanted.release_id, wanted.workload, wanted.reason, wanted.placed_by, len(alike)]
    hold_id = digest_of([wanted.deployment, *facts])[:12]
    deployment.record(
        Kind.HOLD_PLACED,
        f"hold/{hold_id}/placed",
        actor=wanted.placed_by,
        release_id=wanted.release_id,
        workload=wanted.workload,
        data={"hold": hold_id, "subject": wanted.subject, "reason": wanted.reason},
    )
    return _find_hold(deployment, hold_id)


def lift_hold(deployment: Deployment, hold_id: str, *, reason: str, actor: str) -> Hold:
    """Lift a legal hold; anybody may, and both people stand in the log. Lifting it twice is free.

    Raises:
        NotFoundError: there is no such hold.
        RefusedError: no reason is given.
        InvalidInputError: the reason is too long or holds personal data.
        UnavailableError: the lifting is not anchored yet; lift it again.
    """
    reason = _checked_reason(reason)

    def work() -> Hold:
        hold = _find_hold(deployment, hold_id)
        key = f"hold/{hold_id}/lifted"
        lifted = deployment.audit.events(key=f"{deployment.settings.deployment}/{key}")
        if lifted:
            deployment.audit.confirm(lifted[0])
            return hold
        deployment.record(
            Kind.HOLD_LIFTED,
            key,
            actor=actor,
            release_id=hold.release_id,
            workload=hold.workload,
            data={"hold": hold_id, "reason": reason},
        )
        return _find_hold(deployment, hold_id)

    return _store(deployment).alone(work)


def _store(deployment: Deployment) -> SqlAuditStore:
    """The erasable table; neither the key nor the spool is needed to erase."""
    return SqlAuditStore(deployment.log.database, deployment.clock)


def _checked_reason(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise RefusedError("no reason is given", fix="say why with --reason")
    if len(reason) > MAX_REASON:
        raise InvalidInputError(
            f"the reason has {len(reason)} characters, the limit is {MAX_REASON}",
            fix="name the case, such as a ticket, and tell it there",
        )
    for kind, match in find_personal_data(reason).items():
        raise InvalidInputError(
            f"the reason holds what looks like personal data ({kind}: {mask(match)})",
            fix="name the case, such as a ticket: a reason stays in the log for ever",
        )
    return reason


def _texts_of(deployment: Deployment, subject: str, release_id: str | None) -> list[Text]:
    """Everything a person ever wrote here, erased or not.

    Raises:
        NotFoundError: nothing; names the nearest.
    """
    if found := _texts(deployment, subject=subject, release_id=release_id):
        return found
    known = {text.subject for text in _texts(deployment)} - {subject}
    near = difflib.get_close_matches(subject, known, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    about = "" if release_id is None else f" about release {release_id}"
    raise NotFoundError(
        f"{subject!r} never wrote anything{about}",
        where=deployment.settings.deployment,
        fix=f"{guess}`airlock audit personal` lists who did",
    )


def _texts(
    deployment: Deployment, *, subject: str | None = None, release_id: str | None = None
) -> list[Text]:
    """Texts of this deployment: others may share the store."""
    name = deployment.settings.deployment
    found = _store(deployment).texts(subject=subject, release_id=release_id)
    return [text for text in found if text.deployment == name]


def _recorded_erasures(deployment: Deployment) -> dict[bytes, Recorded]:
    """Which event says that a text was erased, by commitment."""
    found: dict[bytes, Recorded] = {}
    for entry in deployment.audit.events(kinds=[Kind.PERSONAL_ERASED]):
        try:
            for commitment in entry.event.data["commitments"]:
                found.setdefault(bytes.fromhex(commitment), entry)
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("event %s records no erasure: %s", entry.event.key, error)
    return found


def _holds(deployment: Deployment) -> list[tuple[Hold, Recorded]]:
    """Holds with the events that placed them."""
    name = deployment.settings.deployment
    entries = [
        entry
        for entry in deployment.audit.events(kinds=[Kind.HOLD_PLACED, Kind.HOLD_LIFTED])
        if entry.event.deployment == name
    ]
    placed = {
        entry.event.data.get("hold"): entry for entry in entries if entry.event.kind is Kind.HOLD_PLACED
    }
    return [(hold, placed[hold.id]) for hold in holds_of(entry.event for entry in entries)]


def _find_hold(deployment: Deployment, hold_id: str) -> Hold:
    known = {hold.id: hold for hold in holds(deployment)}
    if hold_id not in known:
        near = difflib.get_close_matches(hold_id, known, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise NotFoundError(
            f"there is no hold {hold_id!r}", fix=f"{guess}`airlock audit holds` lists those there are"
        )
    return known[hold_id]


def _require_known(deployment: Deployment, wanted: Hold) -> None:
    """A hold with a typing error would keep nothing, and nobody would know."""
    events = deployment.audit.events
    if wanted.release_id:
        try:
            find_release(deployment, wanted.release_id)
        except IntegrityError:
            return  # it is there; that a text of it was changed is no reason against a hold
    elif wanted.workload:
        known = [path.stem for path in deployment.config.workload_files()]
        if wanted.workload not in known and not events(
            workload=wanted.workload, kinds=_WITHOUT_TEXTS, limit=1
        ):
            raise _unknown("workload", wanted.workload, known)
    else:
        known = [person.user for person in deployment.config.people().people]
        seen = wanted.subject in known or events(actor=wanted.subject, kinds=_WITHOUT_TEXTS, limit=1)
        if not seen and not _texts(deployment, subject=wanted.subject):
            raise _unknown("person", wanted.subject, known)


def _unknown(what: str, name: str, known: Iterable[str]) -> NotFoundError:
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return NotFoundError(
        f"nobody knows the {what} {name!r}, so the hold would keep nothing",
        fix=f"{guess}give the {what} as it stands in the log, see `airlock audit tail`",
    )


def _judge(
    deployment: Deployment, texts: list[Text], recorded: Mapping[bytes, Recorded] | None = None
) -> list[Standing]:
    """What keeps each text now, if anything does; a hold that came after a ``recorded`` erasure does not."""
    standing = [(hold, placed) for hold, placed in _holds(deployment) if hold.stands] if texts else []
    rules = _Rules(deployment)
    now_us = deployment.clock.now_us()
    found = []
    for text in texts:
        erased = (recorded or {}).get(text.commitment)
        before = [hold for hold, placed in standing if erased is None or _is_earlier(placed, erased)]
        found.append(_judge_one(text, before, rules, now_us))
    return found


def _is_earlier(one: Recorded, other: Recorded) -> bool:
    return one.ingest_id is not None and (other.ingest_id is None or one.ingest_id < other.ingest_id)


def _judge_one(text: Text, standing: list[Hold], rules: _Rules, now_us: int) -> Standing:
    reasons = [
        f"legal hold {hold.id} on {hold.about}, placed by {hold.placed_by}"
        for hold in standing
        if hold.covers(subject=text.subject, release_id=text.release_id, workload=text.workload)
    ]
    open_end = bool(reasons)
    try:
        regimes = rules.of(text)
    except AirlockError as error:
        regimes, open_end = [], True
        reasons.append(f"its retention regimes cannot be read: {error}")
    running = [regime for regime in regimes if regime.until_us(text.recorded_us) > now_us]
    reasons += [
        f"retention regime {regime.id} ({regime.source}) until {day(regime.until_us(text.recorded_us))}"
        for regime in running
    ]
    ends = [regime.until_us(text.recorded_us) for regime in running]
    return Standing(text, "; ".join(reasons), None if open_end or not ends else max(ends))


class _Rules:
    """Retention regimes of workloads, each read once."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._known: dict[tuple[str, str], list[Regime] | AirlockError] = {}
        self._files = {path.stem for path in deployment.config.workload_files()}

    def of(self, text: Text) -> list[Regime]:
        """The regimes a text is under: as the workload file says now, or as it was frozen if that is gone.

        Raises:
            AirlockError: they cannot be read, so nobody can say that none applies.
        """
        there = text.workload in self._files
        place = (text.workload, "" if there else text.release_id)
        if place not in self._known:
            self._known[place] = self._read(*place)
        found = self._known[place]
        if isinstance(found, AirlockError):
            raise found
        return found

    def _read(self, workload: str, release_id: str) -> list[Regime] | AirlockError:
        config = self._deployment.config
        try:
            if release_id:
                return config.regimes(open_case(self._deployment, release_id).workload)
            return config.regimes(config.workload(workload))
        except AirlockError as error:
            return error


def _refusal(subject: str, kept: list[Standing]) -> RefusedError:
    counted = Counter(standing.why for standing in kept).most_common()
    reasons = [f"{count} kept by {why}" for why, count in counted[:_REASONS_SHOWN]]
    if len(counted) > _REASONS_SHOWN:
        reasons.append(f"and {len(counted) - _REASONS_SHOWN} more reasons, which --dry-run lists")
    ends = [standing.until_us for standing in kept]
    dates = [end for end in ends if end is not None]
    fixes = [f"from {day(min(dates))} on the first may be erased"] if dates else []
    if None in ends:
        fixes.append("a legal hold ends when it is lifted with `airlock audit lift`")
    return RefusedError(
        f"nothing that {subject} wrote may be erased: {'; '.join(reasons)}",
        where=subject,
        fix="; ".join(fixes),
    )


def day(microseconds: int) -> str:
    """The first day on which a moment has certainly passed, UTC."""
    return datetime.fromtimestamp(-(-microseconds // 86_400_000_000) * 86_400, tz=UTC).strftime("%Y-%m-%d")
