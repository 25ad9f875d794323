"""What people wrote: sealed wherever it is stored, erased for good, kept where a law or a hold says so."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airlock.adapters.audit import SigningKey, SqlAuditStore, Vault, database
from airlock.adapters.audit.personal import ERASED, SEALED, commit
from airlock.core.audit import MAX_BODY_BYTES, Event, Kind
from airlock.core.errors import (
    AirlockError,
    ConfigurationError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from airlock.core.retention import Hold
from airlock.core.task import TaskRef
from airlock.proof import hash_leaf
from airlock.services import privacy
from airlock.services.adopt import adopt
from airlock.services.announce import announce, seal
from airlock.services.approve import answer, standing
from airlock.services.decide import decide
from airlock.services.deployment import Deployment, anchors_of
from airlock.services.evaluate import evaluate
from airlock.services.privacy import erase, lift_hold, overview, place_hold, reapply_erasures
from airlock.services.promote import promote
from airlock.services.sequence import Sequencer
from airlock.services.tasks import record_outcome
from airlock.services.verify import verify
from tests.support.databases import Backend, Postgres, make_event
from tests.support.deployments import WORKLOAD, Killed, World, edit, make_world, open_world, write_yaml

REASON = "Request DSR-17"
TABLES = ("event", "pending", "leaf", "tile", "checkpoint", "anchor_receipt", "personal")


@pytest.fixture
def backend(empty: Backend) -> Backend:
    """The database that ``world`` lives in."""
    return empty


@pytest.fixture
def world(backend: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A deployment whose audit log is in the database of the test."""
    yield from _world(backend, folder, monkeypatch)


@pytest.fixture
def sqlite_world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from _world(Backend("sqlite", f"sqlite:///{folder / 'audit.db'}"), folder, monkeypatch)


def _world(backend: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("AIRLOCK_AUDIT_URL", backend.url)
    made = make_world(folder / "world")
    yield made
    made.deployment.log.database.close()


def stored(folder: Path, backend: Backend) -> bytes:
    """Every byte a deployment keeps: all files, and in PostgreSQL all rows."""
    parts = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    if backend.name == "postgresql":
        for table in TABLES:
            parts += [str(row[0]).encode() for row in backend.raw(f"SELECT t::text FROM {table} t")]  # noqa: S608
    return b"\n".join(parts)


def forms(text: str) -> list[bytes]:
    """A text as it could stand in a file: plain, and in hex as PostgreSQL prints bytes."""
    return [text.encode(), text.encode().hex().encode()]


def rows(backend: Backend) -> dict[bytes, tuple[bytes, bytes]]:
    """Wrapped key and sealed text of every row, by commitment."""
    found = backend.raw("SELECT commitment, wrapped_key, sealed FROM personal")
    return {bytes(row[0]): (bytes(row[1]), bytes(row[2])) for row in found}


def erase_all(world: World, subject: str = "dana", **changes: Any) -> privacy.Erasure:
    return erase(world.deployment, subject, **{"actor": "pia", "reason": REASON, **changes})


def hold(world: World, **changes: Any) -> Hold:
    return place_hold(world.deployment, **{"reason": "Case 4711", "actor": "lea", **changes})


def kept_texts(world: World, subject: str) -> int:
    return sum(len(kept.standings) for kept in overview(world.deployment) if kept.subject == subject)


def commitments_in_log(world: World) -> list[str]:
    return [found for event in world.events(Kind.PERSONAL_ERASED) for found in event.data["commitments"]]


def is_verified(world: World) -> bool:
    settings = world.deployment.settings
    public = SigningKey.load(settings.signing_key).public
    found = verify(world.deployment.log.database, public, anchors_of(settings), strict=True, processes=1)
    return found.holds


# Where it is stored


@pytest.mark.requirement("E-5")
def test_what_people_wrote_stands_nowhere_but_in_the_sealed_table(
    world: World, backend: Backend, folder: Path
) -> None:
    """A promoted, a rejected and a denied release, refused answers, failed tasks, and an adoption."""
    said = {name: f"canary-{name}-0b9e" for name in ("context", "approve", "reject", "refused", "adopt")}
    deployment = world.deployment
    world.registry.champions.clear()
    adopt(deployment, WORKLOAD, "1", actor="petra", reason=said["adopt"])

    promoted = world.judged("2", context=said["context"])
    with pytest.raises(RefusedError):
        world.answer(promoted, "grace", 0, comment=said["refused"] + "x" * 5_000)
    with pytest.raises(RefusedError):
        world.answer(promoted, "dana", 0, comment=said["refused"])
    with pytest.raises(RefusedError):
        world.answer(promoted, "grace", 0, comment=f"{said['refused']}\0")
    world.answer(promoted, "grace", 0, comment=said["approve"])
    world.answer(promoted, "ravi", 1, comment=said["approve"])
    promote(deployment, promoted)

    rejected = world.judged("3", run="run-2", context=said["context"])
    world.answer(rejected, "grace", 0, "reject", comment=said["reject"])
    now = standing(deployment, rejected)
    assert now.feedback == said["reject"], "people are told"
    task = TaskRef(
        dag_id="d", run_id="run-2", task_id="approval", map_index=-1, try_number=1,
        release_id=rejected, workload=WORKLOAD, version="3",
    )  # fmt: skip
    record_outcome(deployment, task, "failed", source="operator", error=f"{now.state}: {now.sentence}")

    denied = world.frozen("3", run="run-3", context=said["context"])
    evaluate(deployment, denied, "documentation")
    world.evidence(denied, verdicts={"documentation": None})
    decide(deployment, denied)

    for release_id in (promoted, rejected, denied):
        announce(deployment, release_id)
        assert seal(deployment, release_id)
    assert said["reject"] in announce(deployment, rejected), "the message quotes what its record does not"

    everything = stored(folder, backend)
    assert promoted.encode() in everything, "the search looks where things are stored"
    for text in said.values():
        assert [form for form in forms(text) if form in everything] == [], text
    assert world.release(promoted).context == said["context"]
    assert [given.comment for given in world.release(promoted).answers] == [said["approve"]] * 2
    assert world.events(Kind.CHAMPION_ADOPTED)[0].data["reason"] == said["adopt"]
    assert len(rows(backend)) == 3 + 2 + 1 + 1


@pytest.mark.requirement("E-5")
def test_the_same_text_is_sealed_differently_each_time_with_32_bytes_of_salt(
    world: World, backend: Backend
) -> None:
    for run in ("run-1", "run-2", "run-3"):
        world.submit(run=run, context="The same words.")
    vault = world.deployment.vault
    opened = [vault.open_with_salt(row) for row in backend.open().personal(rows(backend))]
    assert [text for _, text in opened] == ["The same words."] * 3
    salts = {salt for salt, _ in opened}
    assert (len(salts), {len(salt) for salt in salts}) == (3, {32})
    assert {commit(salt, text) for salt, text in opened} == set(rows(backend))
    for column in zip(*rows(backend).values(), strict=True):
        assert len(set(column)) == 3, "keys and ciphertexts are new each time"


@pytest.mark.requirement("E-5")
def test_a_retry_has_the_same_commitment_and_brings_nothing_back(world: World, backend: Backend) -> None:
    release_id = world.submit(context="Why.")
    bodies = backend.bodies()
    assert world.submit(context="Why.") == release_id
    assert backend.bodies() == bodies
    erase_all(world)
    assert world.submit(context="Why.") == release_id
    assert rows(backend) == {}
    assert world.release(release_id).context == ERASED


@pytest.mark.requirement("E-5")
def test_without_the_key_texts_stay_sealed_and_the_store_goes_on(world: World, backend: Backend) -> None:
    release_id = world.submit(context="Why.")
    world.deployment.settings.personal_key_path.unlink()
    assert world.release(release_id).context == SEALED
    world.deployment.record(Kind.TASK_STARTED, "another")
    with pytest.raises(ConfigurationError, match="key for personal data is not there"):
        world.submit("3", run="run-2", context="Never kept in the clear.")
    assert len(backend.raw("SELECT 1 FROM event")) == 2
    assert overview(world.deployment, subject="dana")[0].standings
    erase_all(world)
    assert rows(backend) == {}


@pytest.mark.requirement("E-5")
def test_another_key_or_a_changed_row_is_noticed(world: World, backend: Backend) -> None:
    release_id = world.submit(context="Why.")
    key = world.deployment.settings.personal_key_path
    right = key.read_bytes()
    key.unlink()
    Vault(key).ensure()
    with pytest.raises(IntegrityError, match="changed, or sealed with another key"):
        world.release(release_id)
    key.write_bytes(right)
    assert world.release(release_id).context == "Why."
    with pytest.raises((sa.exc.DBAPIError, sqlite3.DatabaseError), match="append-only"):
        backend.raw("UPDATE personal SET sealed = wrapped_key")
    put = "INSERT INTO personal SELECT commitment, subject, release_id, recorded_us, wrapped_key, wrapped_key"
    backend.raw("CREATE TABLE taken AS SELECT * FROM personal", "DELETE FROM personal", f"{put} FROM taken")
    with pytest.raises(IntegrityError, match="was changed"):
        world.release(release_id)
    assert hold(world, release_id=release_id).stands, "a release with a forged text can be held"


# Erasing


@pytest.mark.requirement("E-5")
def test_erased_texts_are_unreadable_and_every_proof_still_holds(world: World, backend: Backend) -> None:
    release_id = world.granted(context="Written by Dana.")
    promote(world.deployment, release_id)
    before = world.deployment.log.head()
    bodies = [world.deployment.log.entry(seq).body for seq in range(before.size)]
    world.clock.advance(hours=1)

    done = erase_all(world)
    assert [(text.kind, text.field, text.release_id) for text in done.erased] == [
        (Kind.RELEASE_SUBMITTED, "context", release_id)
    ]
    assert world.release(release_id).context == ERASED
    assert [given.comment for given in world.release(release_id).answers] == ["Looks right."] * 2

    erased = world.events(Kind.PERSONAL_ERASED)[0]
    assert (erased.actor, erased.data["subject"], erased.data["reason"]) == ("pia", "dana", REASON)
    assert erased.data["commitments"] == [text.commitment.hex() for text in done.erased]
    log = world.deployment.log
    for seq, body in enumerate(bodies):
        entry = log.entry(seq)
        assert entry.body == body, "no event was changed"
        proof = log.prove(seq)
        proof.verify(entry.body)
        assert proof.checkpoint.size > before.size
    assert log.root(before.size) == before.root
    assert is_verified(world), "an erasure is not a theft"


def test_a_text_that_is_taken_away_without_a_record_is_a_theft(world: World, backend: Backend) -> None:
    release_id = world.granted()
    backend.raw("DELETE FROM personal")
    assert not is_verified(world)
    assert world.release(release_id).context == ERASED
    (kept,) = overview(world.deployment, subject="dana")
    assert (kept.standings, kept.erased, kept.missing) == ([], 0, 1)


@pytest.mark.requirement("E-5")
def test_sqlite_overwrites_what_is_erased_also_in_its_write_ahead_log(
    sqlite_world: World, folder: Path
) -> None:
    """The text is encrypted, so what is looked for is its ciphertext and its key."""
    backend = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
    for number in range(3):
        sqlite_world.submit(run=f"run-{number}", context=f"{number}" * 20_000)
    reader = sqlite3.connect(folder / "audit.db")
    reader.execute("SELECT count(*) FROM event").fetchone()  # the log stays while somebody is connected
    secret = [part for row in rows(backend).values() for part in row]
    everything = stored(folder, backend)
    chunks = [part[at : at + 60] for part in secret for at in range(0, len(part) - 60, 500)] + secret[::2]
    assert [chunk in everything for chunk in chunks].count(True) > len(chunks) / 2
    erase_all(sqlite_world)
    everything = stored(folder, backend)
    assert [chunk for chunk in chunks if chunk in everything] == []
    reader.close()


@pytest.mark.requirement("E-5")
def test_a_reader_that_keeps_old_pages_is_an_error_and_another_run_ends_it(
    sqlite_world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
    sqlite_world.submit(context="Why.")
    secret = next(iter(rows(backend).values()))[1]
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    hasty = replace(sqlite_world.deployment, log=backend.log())
    reader = sqlite3.connect(folder / "audit.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM personal").fetchone()
    with pytest.raises(UnavailableError, match="write-ahead log still holds"):
        erase(hasty, "dana", actor="pia", reason=REASON)
    assert rows(backend) == {}
    reader.close()
    erase(hasty, "dana", actor="pia", reason=REASON)
    assert secret not in stored(folder, backend)
    assert len(sqlite_world.events(Kind.PERSONAL_ERASED)) == 1
    backend.close()


def test_vacuum_full_and_a_checkpoint_take_it_out_of_postgresql_s_file(
    postgres_backend: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for world in _world(postgres_backend, folder, monkeypatch):
        world.submit(context="Why.")
        secret = next(iter(rows(postgres_backend).values()))[1]
        erase_all(world)
        engine = sa.create_engine(postgres_backend.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if connection.exec_driver_sql("SHOW is_superuser").scalar() == "off":
                pytest.skip("only a superuser may read the server's files")
            connection.exec_driver_sql("VACUUM FULL personal")
            connection.exec_driver_sql("CHECKPOINT")
            read = "SELECT pg_read_binary_file(pg_relation_filepath('personal'))"
            assert secret not in bytes(connection.exec_driver_sql(read).scalar_one())
        engine.dispose()


@pytest.mark.requirement("E-5")
def test_who_may_not_delete_records_no_erasure_either(
    postgres_backend: Backend, postgres: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sequencer would delete it at its next start, in the name of somebody without the right."""
    for world in _world(postgres_backend, folder, monkeypatch):
        release_id = world.submit(context="Why.")
        role = f"airlock_test_{uuid.uuid4().hex}"
        postgres.run(f"CREATE ROLE {role} NOLOGIN")
        schema = postgres_backend.raw("SELECT current_schema()")[0][0]
        postgres_backend.raw(
            f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {schema} TO {role}",
        )
        url = sa.make_url(postgres_backend.url)
        options = f"{url.query['options']} -crole={role}"
        limited = Backend(
            "postgresql", url.update_query_dict({"options": options}).render_as_string(hide_password=False)
        )
        try:
            with pytest.raises(UnavailableError, match="permission denied for table personal"):
                erase(replace(world.deployment, log=limited.log()), "dana", actor="eve", reason=REASON)
        finally:
            limited.close()
            postgres_backend.raw(f"DROP OWNED BY {role}")
            postgres.run(f"DROP ROLE {role}")
        assert world.events(Kind.PERSONAL_ERASED) == []
        assert world.release(release_id).context == "Why."


@pytest.mark.requirement("E-5")
def test_only_one_release_is_erased_when_it_is_named(world: World) -> None:
    first = world.submit(context="One.")
    second = world.submit("3", run="run-2", context="Two.")
    assert [text.release_id for text in erase_all(world, release_id=first).erased] == [first]
    assert (world.release(first).context, world.release(second).context) == (ERASED, "Two.")
    assert world.events(Kind.PERSONAL_ERASED, first), "the release's own history tells of it"
    with pytest.raises(NotFoundError, match="never wrote anything about release nonsense"):
        erase_all(world, release_id="nonsense")


def test_erasing_twice_or_with_another_reason_records_once(world: World) -> None:
    world.submit(context="Why.")
    assert len(erase_all(world).erased) == 1
    for actor in ("pia", "paul"):
        again = erase_all(world, actor=actor, reason="Another request")
        assert (again.erased, again.kept) == ([], [])
    assert len(world.events(Kind.PERSONAL_ERASED)) == 1
    assert world.events(Kind.CONFLICT) == []


def test_a_person_who_never_wrote_anything_is_an_error_and_not_a_success(world: World) -> None:
    world.submit(context="Why.")
    with pytest.raises(NotFoundError, match="'dnaa' never wrote anything") as caught:
        erase_all(world, "dnaa")
    assert "did you mean 'dana'?" in caught.value.fix
    assert world.events(Kind.PERSONAL_ERASED) == []


@pytest.mark.parametrize(
    ("reason", "error", "words"),
    [
        ("", RefusedError, "no reason is given"),
        (" \n", RefusedError, "no reason is given"),
        ("x" * 501, InvalidInputError, "501 characters"),
        ("Asked by dana.miller@example.com", InvalidInputError, r"e-mail address: xxxx\.xxxxxx@"),
        ("nul \0", InvalidInputError, "NUL"),
        ("half \ud800", InvalidInputError, "canonical JSON"),
    ],
)
def test_a_reason_is_given_and_holds_no_personal_data_because_it_stays(
    sqlite_world: World, reason: str, error: type[AirlockError], words: str
) -> None:
    release_id = sqlite_world.submit(context="Why.")
    with pytest.raises(error, match=words):
        erase_all(sqlite_world, reason=reason)
    assert sqlite_world.release(release_id).context == "Why."
    with pytest.raises(error, match=words):
        hold(sqlite_world, subject="dana", reason=reason)
    placed = hold(sqlite_world, subject="dana")
    with pytest.raises(error, match=words):
        lift_hold(sqlite_world.deployment, placed.id, reason=reason, actor="lea")
    assert [found.stands for found in privacy.holds(sqlite_world.deployment)] == [True]


def test_a_dry_run_changes_nothing_and_says_what_would_happen(world: World, backend: Backend) -> None:
    first = world.submit(context="One.")
    world.submit("3", run="run-2", context="Two.")
    placed = hold(world, release_id=first)
    events = len(backend.raw("SELECT 1 FROM event"))
    plan = erase_all(world, dry_run=True)
    assert [text.release_id for text in plan.erased] != [first]
    assert [(each.text.release_id, each.until_us) for each in plan.kept] == [(first, None)]
    assert f"legal hold {placed.id} on release {first}, placed by lea" in plan.kept[0].why
    assert len(backend.raw("SELECT 1 FROM event")) == events
    assert len(rows(backend)) == 2
    done = erase_all(world)
    assert (done.erased, done.kept) == (plan.erased, plan.kept)


def test_many_texts_are_recorded_in_several_events_of_bounded_size(sqlite_world: World) -> None:
    deployment = sqlite_world.deployment
    for number in range(501):
        event = make_event(f"k{number}", kind=Kind.RELEASE_SUBMITTED, data={"context": f"Text {number}."})
        deployment.audit.append(event)
    assert len(erase_all(sqlite_world, reason="\u0007" * 499 + ".").erased) == 501
    found = sqlite_world.events(Kind.PERSONAL_ERASED)
    assert [len(event.data["commitments"]) for event in found] == [500, 1]
    assert max(len(event.to_bytes()) for event in found) < MAX_BODY_BYTES
    assert len(set(commitments_in_log(sqlite_world))) == 501
    assert kept_texts(sqlite_world, "dana") == 0


def test_deployments_that_share_a_store_do_not_share_their_people(world: World) -> None:
    world.submit(context="Why.")
    other = replace(
        world.deployment, settings=world.deployment.settings.model_copy(update={"deployment": "other"})
    )
    with pytest.raises(NotFoundError):
        erase(other, "dana", actor="pia", reason=REASON)
    placed = place_hold(other, subject="dana", reason="Case 4711", actor="lea")
    assert privacy.holds(world.deployment) == []
    with pytest.raises(NotFoundError, match=r"there is no hold .*airlock audit holds"):
        lift_hold(world.deployment, placed.id, reason="Over", actor="lea")
    assert len(erase_all(world).erased) == 1


# Kills


def watched(world: World, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """The deployment with failpoints around the log and the erasable table."""
    real = privacy._store
    monkeypatch.setattr(privacy, "_store", lambda found: world.failpoints.watch("texts", real(found)))
    return world.watched()


@pytest.mark.requirement("E-5")
@pytest.mark.parametrize("error", [Killed(), UnavailableError("no acknowledgement came")])
def test_an_erasure_killed_at_any_moment_is_finished_by_another_run(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    deployment = watched(world, monkeypatch)
    moments: set[str] = set()
    number = 0
    while True:
        number += 1
        release_id = world.submit(run=f"run-{number}", context="Why.")
        world.failpoints.stop_at(number, error)
        try:
            erase(deployment, "dana", actor="pia", reason=REASON)
        except type(error):
            moments.add(world.failpoints.reached[-1])
        else:
            break
        is_recorded = world.events(Kind.PERSONAL_ERASED)[number - 1 :] != []
        assert rows(backend) or is_recorded, "nothing is deleted that is not recorded"
        world.failpoints.stop_at(0, error)
        # Who comes later may have another reason; what was recorded is finished all the same.
        erase(deployment, "dana", actor="paul", reason="Another request")
        assert rows(backend) == {}
        assert world.release(release_id).context == ERASED
        assert len(world.events(Kind.PERSONAL_ERASED)) == number, "once for each text"
    assert {
        "after audit.append",
        "before audit.confirm",
        "before texts.erase",
        "after texts.erase",
    } <= moments
    assert world.events(Kind.CONFLICT) == []
    assert is_verified(world)


@pytest.mark.requirement("E-5")
def test_a_hold_killed_at_any_moment_is_placed_and_lifted_once(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_world
    world.submit(context="Why.")
    deployment = watched(world, monkeypatch)
    number, ended = 0, False
    while not ended:
        number += 1
        ended = True
        for attempt in (number, 0):
            world.failpoints.stop_at(attempt, Killed())
            try:
                placed = place_hold(deployment, subject="dana", reason=f"Case {number}", actor="lea")
            except Killed:
                ended = False
        for attempt in (number, 0):
            world.failpoints.stop_at(attempt, Killed())
            try:
                lift_hold(deployment, placed.id, reason="Over", actor="ravi")
            except Killed:
                ended = False
        assert [found.stands for found in privacy.holds(world.deployment)] == [False] * number
    assert number > 5, "there were moments to be killed at"
    assert len(world.events(Kind.HOLD_PLACED)) == len(world.events(Kind.HOLD_LIFTED)) == number
    assert world.events(Kind.CONFLICT) == []


# Backups


@pytest.mark.requirement("E-5")
def test_what_a_restored_backup_brings_back_is_erased_again(world: World, backend: Backend) -> None:
    erased_id = world.submit(context="Erased.")
    kept_id = world.submit("3", run="run-2", user="omar", context="Kept.")
    backend.raw("CREATE TABLE backup AS SELECT * FROM personal")
    erase_all(world)
    assert reapply_erasures(world.deployment) == 0
    put = "INSERT INTO personal SELECT * FROM backup WHERE subject = 'dana'"
    backend.raw(put)
    assert world.release(erased_id).context == "Erased.", "it is back"
    assert reapply_erasures(world.deployment) == 1
    assert reapply_erasures(world.deployment) == 0
    assert world.release(erased_id).context == ERASED
    assert world.release(kept_id).context == "Kept."
    assert [kept.subject for kept in overview(world.deployment) if kept.standings] == ["omar"]


def test_events_that_only_look_like_erasures_or_holds_stop_nothing(world: World) -> None:
    """Whoever may write events could write such ones; neither the sequencer nor an erasure dies of them."""
    release_id = world.submit(context="Why.")
    forged: list[tuple[Kind, dict[str, Any]]] = [
        (Kind.PERSONAL_ERASED, {}),
        (Kind.PERSONAL_ERASED, {"commitments": ["no hex"]}),
        (Kind.PERSONAL_ERASED, {"commitments": 5}),
        (Kind.PERSONAL_ERASED, {"commitments": [None]}),
        (Kind.HOLD_PLACED, {}),
        (Kind.HOLD_LIFTED, {"hold": "never placed"}),
    ]
    for number, (kind, data) in enumerate(forged):
        world.deployment.record(kind, f"forged/{number}", actor="mallory", data=data)
    assert reapply_erasures(world.deployment) == 0
    assert privacy.holds(world.deployment) == []
    assert world.release(release_id).context == "Why."
    erase_all(world)
    assert world.release(release_id).context == ERASED


# Legal holds


@pytest.mark.requirement("E-5")
@pytest.mark.parametrize("about", ["subject", "release_id", "workload"])
def test_a_legal_hold_keeps_what_it_is_about_until_it_is_lifted(world: World, about: str) -> None:
    release_id = world.submit(context="Why.")
    values = {"subject": "dana", "release_id": release_id, "workload": WORKLOAD}
    placed = hold(world, **{about: values[about]})
    assert (placed.placed_by, placed.reason, placed.stands) == ("lea", "Case 4711", True)
    with pytest.raises(RefusedError, match=f"legal hold {placed.id} on") as caught:
        erase_all(world)
    assert "airlock audit lift" in caught.value.fix
    assert world.events(Kind.PERSONAL_ERASED) == []
    world.clock.advance(hours=24 * 365 * 50)
    with pytest.raises(RefusedError):
        erase_all(world)
    lifted = lift_hold(world.deployment, placed.id, reason="Case closed", actor="ravi")
    assert (lifted.placed_by, lifted.lifted_by, lifted.lift_reason) == ("lea", "ravi", "Case closed")
    erase_all(world)
    assert world.release(release_id).context == ERASED
    assert is_verified(world)


@pytest.mark.requirement("E-5")
def test_an_untrue_record_of_an_erasure_erases_nothing_that_is_kept(world: World) -> None:
    """Whoever may append could write one; the sequencer and the next erasure judge for themselves."""
    release_id = world.submit(context="Why.")
    hold(world, subject="dana")
    (text,) = SqlAuditStore(world.deployment.log.database, world.clock).texts(subject="dana")
    data = {"subject": "dana", "reason": "none", "commitments": [text.commitment.hex()]}
    world.deployment.record(Kind.PERSONAL_ERASED, "forged", actor="mallory", data=data)
    assert reapply_erasures(world.deployment) == 0
    with pytest.raises(RefusedError, match="legal hold"):
        erase_all(world)
    assert world.release(release_id).context == "Why."


def test_a_hold_on_something_else_keeps_nothing(world: World) -> None:
    world.submit(context="Why.")
    other = world.submit("3", run="run-2", user="omar", context="Why.")
    hold(world, release_id=other)
    hold(world, subject="omar")
    assert len(erase_all(world).erased) == 1


def test_each_of_several_holds_has_to_be_lifted(world: World) -> None:
    world.submit(context="Why.")
    one = hold(world, subject="dana")
    two = hold(world, subject="dana", reason="Case 4712")
    three = hold(world, workload=WORKLOAD)
    assert hold(world, subject="dana") == one, "the same again is the same hold"
    assert len({one.id, two.id, three.id}) == 3
    for placed in (one, three):
        lift_hold(world.deployment, placed.id, reason="Over", actor="lea")
        with pytest.raises(RefusedError, match=two.id):
            erase_all(world)
    first = lift_hold(world.deployment, two.id, reason="Over", actor="lea")
    again = lift_hold(world.deployment, two.id, reason="Over again", actor="ravi")
    assert again == first, "who lifted it first did"
    erase_all(world)
    anew = hold(world, subject="dana")
    assert anew.stands
    assert anew.id != one.id, "a lifted hold does not come back to life under its old name"
    assert [found.stands for found in privacy.holds(world.deployment)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"subject": "dnaa"}, "did you mean 'dana'"),
        ({"workload": "loan-modle"}, f"did you mean '{WORKLOAD}'"),
        ({"release_id": "loan-model-v2-0"}, "airlock release list"),
        ({"subject": ""}, "airlock audit tail"),
    ],
)
def test_a_hold_on_what_nobody_knows_is_refused_because_it_would_keep_nothing(
    sqlite_world: World, about: dict[str, str], words: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        hold(sqlite_world, **about)
    assert words in caught.value.fix
    with pytest.raises(InvalidInputError, match="one person, one release or one workload"):
        hold(sqlite_world, **about, **{"workload" if "workload" not in about else "subject": "x"})
    with pytest.raises(InvalidInputError):
        hold(sqlite_world)
    assert sqlite_world.events(Kind.HOLD_PLACED) == []


def test_people_and_workloads_that_are_gone_from_the_configuration_can_still_be_held(world: World) -> None:
    world.submit(context="Why.", user="former")
    world.granted(run="run-2")
    world.workload_file.unlink()
    assert hold(world, subject="former").stands
    assert hold(world, workload=WORKLOAD).stands
    with pytest.raises(RefusedError, match="legal hold"):
        erase_all(world, "former")


@pytest.mark.requirement("E-5")
def test_a_hold_never_comes_between_the_decision_to_erase_and_its_record(world: World) -> None:
    """Both wait for each other: a hold that was confirmed first keeps, one that comes later is later."""
    world.submit(context="Why.")
    audit = world.deployment.audit
    threads: list[threading.Thread] = []

    def place() -> None:
        other = open_world(world.root)
        hold(other, subject="dana")
        other.deployment.log.database.close()

    class Meanwhile:
        def __getattr__(self, name: str) -> Any:
            return getattr(audit, name)

        def append(self, event: Event) -> Any:
            if event.kind is Kind.PERSONAL_ERASED and not threads:
                threads.append(threading.Thread(target=place))
                threads[0].start()
                threads[0].join(0.3)
                assert threads[0].is_alive(), "the hold waits until the erasure is done"
            return audit.append(event)

    erase(replace(world.deployment, audit=Meanwhile()), "dana", actor="pia", reason=REASON)
    threads[0].join(30)
    kinds = [entry.event.kind for entry in audit.events(kinds=[Kind.PERSONAL_ERASED, Kind.HOLD_PLACED])]
    assert kinds == [Kind.PERSONAL_ERASED, Kind.HOLD_PLACED]
    assert privacy.holds(world.deployment)[0].stands


def test_what_was_recorded_as_erased_is_finished_whatever_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_id = world.submit(context="Why.")
    deployment = watched(world, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(SqlAuditStore, "erase", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            erase(deployment, "dana", actor="pia", reason=REASON)
    hold(world, subject="dana")
    assert world.release(release_id).context == "Why."
    erase_all(world)
    assert world.release(release_id).context == ERASED


# Retention


def regime(regime_id: str, days: int) -> dict[str, Any]:
    return {"id": regime_id, "title": regime_id, "source": f"Law {regime_id}", "keep_days": days}


def under(world: World, *regimes: str) -> None:
    """Put the workload under regimes of which ``short`` is 10 days and ``long`` 20."""
    write_yaml(world.config / "retention.yaml", {"regimes": [regime("short", 10), regime("long", 20)]})
    with world.workload_file.open("a") as stream:
        stream.write(f"regimes: [{', '.join(regimes)}]\n")


@pytest.mark.requirement("E-5")
def test_a_retention_regime_keeps_a_text_for_its_days_and_not_longer(world: World) -> None:
    under(world, "short", "long")
    release_id = world.submit(context="Why.")
    with pytest.raises(RefusedError) as caught:
        erase_all(world)
    assert "retention regime short (Law short) until 2026-01-11" in caught.value.what
    assert "retention regime long (Law long) until 2026-01-21" in caught.value.what
    assert "from 2026-01-21 on" in caught.value.fix
    world.clock.advance(hours=20 * 24, us=-1)
    with pytest.raises(
        RefusedError, match=r"^nothing that dana wrote .* long \(Law long\) until 2026-01-21"
    ) as caught:
        erase_all(world)
    assert "short" not in caught.value.what, "its time is over"
    world.clock.advance(us=1)
    erase_all(world)
    assert world.release(release_id).context == ERASED


@pytest.mark.requirement("E-5")
def test_each_text_is_judged_by_itself(world: World) -> None:
    under(world, "short")
    old = world.submit(context="Old.")
    world.clock.advance(hours=240)
    new = world.submit("3", run="run-2", context="New.")
    done = erase_all(world)
    assert [text.release_id for text in done.erased] == [old]
    assert [each.text.release_id for each in done.kept] == [new]
    assert done.kept[0].until_us == world.clock.us + 10 * 86_400_000_000
    assert (world.release(old).context, world.release(new).context) == (ERASED, "New.")
    assert commitments_in_log(world) == [done.erased[0].commitment.hex()]


def test_a_backdated_event_is_kept_from_the_day_it_was_received(world: World) -> None:
    under(world, "short")
    event = make_event(
        kind=Kind.RELEASE_SUBMITTED, workload=WORKLOAD, occurred_us=1, data={"context": "Backdated."}
    )
    world.deployment.audit.append(event)
    with pytest.raises(RefusedError, match="until 2026-01-11"):
        erase_all(world)


@pytest.mark.requirement("E-5")
def test_a_workload_that_is_gone_keeps_its_regimes_as_they_were_frozen(world: World) -> None:
    under(world, "short")
    world.frozen(context="Frozen.")
    world.workload_file.unlink()
    with pytest.raises(RefusedError, match="retention regime short"):
        erase_all(world)
    world.clock.advance(hours=240)
    assert len(erase_all(world).erased) == 1


def test_nothing_is_erased_while_nobody_can_say_which_regimes_apply(world: World) -> None:
    under(world, "short")
    world.submit(context="Never frozen.")
    adopt_under(world)
    world.clock.advance(hours=24 * 365)
    for spoil in (
        lambda: edit(world.workload_file, "regimes: [short]", "regimes: [shrot]"),
        (world.config / "retention.yaml").unlink,
        lambda: world.workload_file.write_text("{"),
        world.workload_file.unlink,
    ):
        spoil()
        for subject in ("dana", "petra"):
            with pytest.raises(RefusedError, match="retention regimes cannot be read"):
                erase_all(world, subject)
    assert world.events(Kind.PERSONAL_ERASED) == []


def adopt_under(world: World) -> None:
    world.registry.champions.clear()
    adopt(world.deployment, WORKLOAD, "1", actor="petra", reason="It was there.")


def test_the_reason_of_an_adoption_is_under_its_workload_s_regimes(world: World) -> None:
    under(world, "short")
    adopt_under(world)
    with pytest.raises(RefusedError, match="retention regime short"):
        erase_all(world, "petra")
    world.clock.advance(hours=240)
    assert [text.release_id for text in erase_all(world, "petra").erased] == [""]


# While a release goes on


def test_a_release_goes_on_after_the_words_of_its_people_are_erased(world: World) -> None:
    release_id = world.granted()
    erase_all(world)
    erase_all(world, "grace")
    assert promote(world.deployment, release_id).data["approved_by"] == ["grace", "ravi"]
    rejected = world.judged("3", run="run-2")
    world.answer(rejected, "grace", 0, "reject", comment="This has to change.")
    erase_all(world, "grace")
    now = standing(world.deployment, rejected)
    assert (now.state, now.feedback) == ("rejected", ERASED)
    again = {"user": "grace", "choice": "reject", "comment": "This has to change.", "when": "later"}
    answer(world.deployment, rejected, 0, **again)
    assert standing(world.deployment, rejected).feedback == ERASED, "a retried task brings nothing back"


def test_the_sequencer_signs_events_about_texts_it_cannot_read(world: World) -> None:
    world.deployment.settings.personal_key_path.unlink()
    hold(world, subject="dana")
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    sequencer.start()
    head = world.deployment.log.head()
    entry = world.deployment.log.entry(head.size - 1)
    assert head.root == hash_leaf(entry.body), "the one entry there is"
