"""Whatever somebody with all rights in the database does, the verifier says so, and what it looks like.

The attacker here switches the triggers off, changes what they want, and switches them on again; where it
says so they hold the signing key as well. What they cannot change is the anchor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airlock.adapters.audit import Log, SigningKey
from airlock.adapters.audit.columns import COLUMNS, OF_EVENT, body_of
from airlock.adapters.audit.keys import public_path, read_public_key
from airlock.adapters.audit.scan import (
    INSERTED,
    MALFORMED,
    MODIFIED,
    REMOVED,
    REORDERED,
)
from airlock.adapters.audit.schema import schema_problems
from airlock.core.audit import Event, Kind
from airlock.core.errors import InvalidInputError
from airlock.core.merkle import Tree
from airlock.proof import Checkpoint, PublicKey, hash_leaf
from airlock.services.deployment import Deployment, anchors_of
from airlock.services.keys import restart_log, rotate_key
from airlock.services.verify import (
    CHECKPOINT,
    KEY,
    OUTSIDE,
    PERSONAL,
    REBUILT,
    RESTARTED,
    ROLLED_BACK,
    SCHEMA,
    TRUNCATED,
    Verification,
    verify,
)
from tests.support.databases import (
    INSERT,
    Backend,
    columns_of,
    deployment_on,
    insert_of,
    make_event,
    sequencer_of,
)

SIZE = 600
STEP = 100
TABLES = ("event", "pending", "leaf", "tile", "checkpoint", "anchor_receipt", "personal")


@dataclass
class Scene:
    """A log of 600 events with a text that somebody wrote, six checkpoints, and an anchor that has them."""

    backend: Backend
    deployment: Deployment
    pinned: PublicKey
    notes: list[str] = field(default_factory=list)

    def verify(self, **kwargs: Any) -> Verification:
        anchors = kwargs.pop("anchors", None)
        return verify(
            self.deployment.log.database,
            kwargs.pop("pinned", self.pinned),
            anchors_of(self.deployment.settings) if anchors is None else anchors,
            vault=self.deployment.vault,
            processes=kwargs.pop("processes", 1),
            **kwargs,
        )

    def found(self, **kwargs: Any) -> set[str]:
        """What the verifier says it looks like."""
        return {suspect.what for suspect in self.verify(**kwargs).suspects}

    def first_bad(self, **kwargs: Any) -> int | None:
        return self.verify(**kwargs).suspects[0].seq

    @property
    def key(self) -> SigningKey:
        return SigningKey.load(self.deployment.settings.signing_key)

    @contextmanager
    def as_superuser(self) -> Iterator[sa.Connection]:
        """A connection with nothing in its way, and everything back in its place afterwards."""
        database = self.backend.database()
        with closing(database), database.engine.begin() as connection:
            if self.backend.name == "sqlite":
                triggers = connection.exec_driver_sql(
                    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
                ).all()
                for name, _ in triggers:
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
                yield connection
                for _, statement in triggers:
                    connection.exec_driver_sql(statement)
                return
            off = "; ".join(f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in TABLES)
            connection.exec_driver_sql(off)
            yield connection
            names = connection.exec_driver_sql(
                "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
                "WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal"
            ).all()
            on = "; ".join(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for table, name in names)
            connection.exec_driver_sql(on)

    def attack(self, *statements: str, **values: Any) -> None:
        with self.as_superuser() as connection:
            for statement in statements:
                wanted = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(sa.text(statement), wanted)

    def rebuild(self, key: SigningKey, change: Callable[[int, str], str] = lambda _, body: body) -> None:
        """Replace events, tree and checkpoints by consistent ones, signed with ``key``."""
        with self.as_superuser() as connection:
            rows = [
                (row[0], body_of(row[1:]).decode())
                for row in connection.exec_driver_sql(
                    f"SELECT l.seq, {OF_EVENT} FROM leaf l JOIN event e ON e.ingest_id = l.ingest_id "  # noqa: S608
                    "ORDER BY l.seq"
                )
            ]
            for table in ("tile", "checkpoint"):
                connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
            bodies = [change(seq, body) for seq, body in rows]
            for (seq, old), body in zip(rows, bodies, strict=True):
                if body != old:
                    connection.execute(
                        sa.text(
                            f"UPDATE event SET {', '.join(f'{name} = :{name}' for name in COLUMNS)} "  # noqa: S608
                            "WHERE ingest_id = (SELECT ingest_id FROM leaf WHERE seq = :seq)"
                        ),
                        {**columns_of(body), "seq": seq},
                    )
            self._sign_again(connection, key, bodies)

    @staticmethod
    def _sign_again(connection: sa.Connection, key: SigningKey, bodies: list[str]) -> None:
        tree = Tree()
        for start in range(0, len(bodies), STEP):
            tiles = tree.extend([hash_leaf(body.encode()) for body in bodies[start : start + STEP]])
            for tile in tiles:
                connection.execute(
                    sa.text("INSERT INTO tile (level, idx, root, data) VALUES (:level, :idx, :root, :data)"),
                    {"level": tile.level, "idx": tile.index, "root": tile.root, "data": tile.hashes},
                )
            connection.execute(
                sa.text("INSERT INTO checkpoint (tree_size, root, note) VALUES (:size, :root, :note)"),
                {
                    "size": tree.size,
                    "root": tree.root,
                    "note": key.sign_checkpoint(tree.size, tree.root, seconds=1),
                },
            )


@cache
def _rows() -> list[dict[str, Any]]:
    return [
        columns_of(make_event(f"k{number}", occurred_us=number, received_us=number))
        for number in range(SIZE - 1)
    ]


@pytest.fixture
def scene(backend: Backend, tmp_path: Path) -> Scene:
    deployment = deployment_on(backend, tmp_path / "world")
    sequencer = sequencer_of(deployment)
    deployment.audit.append(
        make_event("written", kind=Kind.RELEASE_SUBMITTED, data={"context": "Because it is better."})
    )
    with deployment.log.database.engine.begin() as connection:
        connection.execute(sa.text(INSERT), _rows())
    tree = deployment.log.tree()
    key = SigningKey.load(deployment.settings.signing_key)
    while (
        done := deployment.log.integrate(
            tree, lambda size, root: key.sign_checkpoint(size, root, seconds=1), limit=STEP
        )
    ) is not None:
        tree = done[0]
        sequencer.publish()
    pinned = read_public_key(public_path(deployment.settings.signing_key))
    return Scene(backend, deployment, pinned)


# Nothing wrong


@pytest.mark.requirement("E-2")
def test_an_untouched_log_holds(scene: Scene) -> None:
    found = scene.verify(strict=True)
    assert found.suspects == []
    assert (found.size, found.checkpoints, found.waiting) == (SIZE, SIZE // STEP, 0)
    assert list(found.anchors.values()) == [SIZE // STEP]
    assert scene.verify(strict=True, processes=2) == found
    scene.deployment.audit.append(make_event("later"))
    later = scene.verify()
    assert later.holds
    assert later.waiting == 1


@pytest.mark.requirement("E-2")
def test_a_time_far_from_its_checkpoint_is_noticed(backend: Backend, tmp_path: Path) -> None:
    deployment = deployment_on(backend, tmp_path / "world")
    key = SigningKey.load(deployment.settings.signing_key)
    now = 1_767_225_600
    tree = deployment.log.tree()
    for batch, claimed in enumerate([now, now + 1, now - 301, now + 200]):
        for number in range(2):
            event = make_event(f"{batch}/{number}", occurred_us=claimed * 1_000_000)
            deployment.audit.append(event)
        done = deployment.log.integrate(tree, lambda size, root: key.sign_checkpoint(size, root, seconds=now))
        assert done is not None
        tree = done[0]
    found = verify(deployment.log.database, key.public, [], processes=1)
    assert found.suspects == []
    (notice,) = [text for text in found.notices if "claim a time" in text]
    assert notice.startswith("2 events claim a time over 5 minutes")
    assert "the first is entry 4" in notice


def test_an_empty_log_holds_and_nothing_is_claimed_about_it(backend: Backend, tmp_path: Path) -> None:
    deployment = deployment_on(backend, tmp_path / "world")
    pinned = read_public_key(public_path(deployment.settings.signing_key))
    found = verify(deployment.log.database, pinned, anchors_of(deployment.settings), processes=1)
    assert (found.holds, found.size, found.checkpoints) == (True, 0, 0)


def test_without_anchors_it_is_said_that_a_rebuilt_log_would_look_true(scene: Scene) -> None:
    scene.rebuild(scene.key, lambda seq, body: body.replace('"n":1', '"n":2') if seq == 7 else body)
    found = scene.verify(anchors=[])
    assert found.holds, "this is what anchors are for"
    assert any("no anchor was read" in notice for notice in found.notices)


# The attack list


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("seq", [7, 255, 256, 599])
def test_a_changed_event_is_found_and_named(scene: Scene, seq: int) -> None:
    scene.attack(
        """UPDATE event SET workload = 'loan-modem'
           WHERE ingest_id = (SELECT ingest_id FROM leaf WHERE seq = :seq)""",
        seq=seq,
    )
    found = scene.verify()
    assert not found.holds
    assert scene.verify(processes=2) == found
    if seq < 512:
        assert (found.suspects[0].what, found.suspects[0].seq) == (MODIFIED, seq)
    else:  # no complete tile names it; the checkpoints do
        assert found.suspects[0].what == REBUILT
        assert found.suspects[0].seq == 500


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("seq", [300, 599])
def test_a_removed_event_is_found(scene: Scene, seq: int) -> None:
    scene.attack("DELETE FROM event WHERE ingest_id = (SELECT ingest_id FROM leaf WHERE seq = :seq)", seq=seq)
    found = scene.verify()
    assert (found.suspects[0].what, found.suspects[0].seq) == (REMOVED, seq)


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("seq", [300, 599])
def test_an_event_removed_with_its_place_is_found(scene: Scene, seq: int) -> None:
    scene.attack(
        "DELETE FROM event WHERE ingest_id = (SELECT ingest_id FROM leaf WHERE seq = :seq)",
        "DELETE FROM leaf WHERE seq = :seq",
        seq=seq,
    )
    found = scene.verify()
    assert (found.suspects[0].what, found.suspects[0].seq) == (REMOVED, seq)


@pytest.mark.requirement("E-2")
def test_an_event_removed_and_the_gap_closed_is_found(scene: Scene) -> None:
    scene.attack(
        "DELETE FROM event WHERE ingest_id = (SELECT ingest_id FROM leaf WHERE seq = 300)",
        "DELETE FROM leaf WHERE seq = 300",
        "UPDATE leaf SET seq = -seq WHERE seq > 300",
        "UPDATE leaf SET seq = -seq - 1 WHERE seq < 0",
    )
    found = scene.verify()
    assert (found.suspects[0].what, found.suspects[0].seq) == (REMOVED, 300)


@pytest.mark.requirement("E-2")
def test_events_that_changed_places_are_found(scene: Scene) -> None:
    scene.attack(
        "UPDATE leaf SET seq = -1 WHERE seq = 10",
        "UPDATE leaf SET seq = 10 WHERE seq = 20",
        "UPDATE leaf SET seq = 20 WHERE seq = -1",
    )
    found = scene.verify()
    assert (found.suspects[0].what, found.suspects[0].seq) == (REORDERED, 10)


@pytest.mark.requirement("E-2")
def test_an_event_inserted_into_the_past_is_found(scene: Scene) -> None:
    event = make_event("forged", occurred_us=1, received_us=1)
    scene.attack(
        "UPDATE leaf SET seq = -seq WHERE seq >= 300",
        "UPDATE leaf SET seq = -seq + 1 WHERE seq < 0",
        insert_of(event).replace(":", "\\:"),
        "INSERT INTO leaf (seq, ingest_id) SELECT 300, max(ingest_id) FROM event",
    )
    found = scene.verify()
    assert (found.suspects[0].what, found.suspects[0].seq) == (INSERTED, 300)


@pytest.mark.requirement("E-2")
def test_an_event_hidden_from_the_sequencer_is_found(scene: Scene) -> None:
    scene.deployment.audit.append(make_event("hidden"))
    scene.attack("DELETE FROM pending")
    assert OUTSIDE in scene.found()


@pytest.mark.requirement("E-2")
def test_a_log_cut_to_an_earlier_checkpoint_is_found_by_the_anchor(scene: Scene) -> None:
    scene.attack(
        "DELETE FROM event WHERE ingest_id IN (SELECT ingest_id FROM leaf WHERE seq >= 300)",
        "DELETE FROM leaf WHERE seq >= 300",
        "DELETE FROM checkpoint WHERE tree_size > 300",
        "DELETE FROM tile WHERE idx > 0",
        "DELETE FROM anchor_receipt WHERE tree_size > 300",
    )
    assert scene.verify(anchors=[]).holds
    found = scene.verify()
    assert (found.suspects[0].what, found.suspects[0].seq) == (TRUNCATED, 300)


@pytest.mark.requirement("E-2")
def test_a_log_rebuilt_by_somebody_with_the_key_is_found_by_the_anchor(scene: Scene) -> None:
    scene.rebuild(scene.key, lambda seq, body: body.replace('"n":1', '"n":2') if seq == 7 else body)
    assert REBUILT in scene.found()


@pytest.mark.requirement("E-2")
def test_everything_cut_off_and_written_anew_with_the_key_is_found_by_the_anchor(scene: Scene) -> None:
    scene.attack(*(f"DELETE FROM {table}" for table in TABLES))  # noqa: S608
    scene.deployment.audit.append(make_event("a new beginning"))
    key = scene.key
    scene.deployment.log.integrate(Tree(), lambda size, root: key.sign_checkpoint(size, root, seconds=1))
    assert TRUNCATED in scene.found()


@pytest.mark.requirement("E-2")
def test_a_log_signed_with_another_key_is_found(scene: Scene) -> None:
    scene.rebuild(SigningKey.generate(scene.pinned.name))
    assert KEY in scene.found(anchors=[])
    other = SigningKey.generate(scene.pinned.name).public
    assert KEY in scene.found(pinned=other, anchors=[])


@pytest.mark.requirement("E-2")
def test_an_old_checkpoint_in_place_of_a_newer_one_is_found(scene: Scene) -> None:
    scene.attack(
        "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE tree_size = 100) "
        "WHERE tree_size = 600"
    )
    assert CHECKPOINT in scene.found(anchors=[])


@pytest.mark.requirement("E-2")
def test_an_anchor_that_was_rolled_back_is_found(scene: Scene) -> None:
    anchor = anchors_of(scene.deployment.settings)[0]
    notes = anchor.history()

    class RolledBack:
        name, every_seconds = anchor.name, 0

        def history(self) -> list[str]:
            return notes[:2]

    assert scene.found(anchors=[RolledBack()]) == {ROLLED_BACK}


@pytest.mark.requirement("E-2")
def test_two_signed_histories_of_one_size_are_found(scene: Scene) -> None:
    key = scene.key

    class SplitView:
        name, every_seconds = "elsewhere", 0

        def history(self) -> list[str]:
            return [key.sign_checkpoint(300, bytes(32), seconds=1)]

    assert scene.found(anchors=[SplitView()]) == {REBUILT}


def test_an_anchor_of_another_log_is_not_taken_for_this_one(scene: Scene) -> None:
    stranger = SigningKey.generate("airlock/other/00")

    class Stranger:
        name, every_seconds = "elsewhere", 0

        def history(self) -> list[str]:
            return [stranger.sign_checkpoint(300, bytes(32), seconds=1)]

    assert scene.found(anchors=[Stranger()]) == {KEY}


@pytest.mark.requirement("E-2")
def test_the_same_bytes_cut_into_other_columns_are_found(scene: Scene) -> None:
    """Were columns only put one after another, a quote in one of them could move where the next begins."""
    inner = make_event("k-inner", data={}, deployment="d", workload="w", occurred_us=5)
    data = {name: value for name, value in json.loads(inner.to_bytes()).items() if name > "data"}
    scene.deployment.audit.append(make_event("k-outer", data={"a": 1, **data}))
    integrate_to(scene, 768)
    assert scene.verify(anchors=[]).suspects == []
    outer = next(body for body in scene.backend.bodies() if b'"key":"k-outer"' in body).decode()
    moved: dict[str, Any] = columns_of(inner) | {"data": '{"a":1'}
    moved["workload"] = outer[outer.index('"workload":"w"') + 12 : -2]
    assert plainly(moved) == outer, "the same bytes, if nothing is escaped"
    assert body_of(list(moved.values())).decode() != outer
    names = ", ".join(f"{name} = :{name}" for name in COLUMNS)
    change = f"UPDATE event SET {names} WHERE key = 'k-outer'"  # noqa: S608
    scene.attack(*unchecked(scene), change, **moved)
    found = scene.verify(anchors=[])
    assert (found.suspects[0].what, found.suspects[0].seq) == (MODIFIED, 600)


def plainly(values: dict[str, Any]) -> str:
    """The columns one after another, as an event has them whose texts need no escapes."""
    texts = {name: value if name == "data" else f'"{value}"' for name, value in values.items()}
    fields = {**texts, **{name: values[name] for name in ("occurred_us", "received_us")}, "schema_version": 1}
    return "{" + ",".join(f'"{name}":{fields[name]}' for name in sorted(fields)) + "}"


def unchecked(scene: Scene) -> list[str]:
    """What lets a superuser write data that is no object."""
    if scene.backend.name == "sqlite":
        return ["PRAGMA ignore_check_constraints = ON"]
    return []  # it is checked by a trigger, and triggers are off


def integrate_to(scene: Scene, size: int) -> None:
    """Let the log grow to a size, so that its last tile is complete."""
    for number in range(scene.deployment.log.head().size + 1, size):
        scene.deployment.audit.append(make_event(f"more{number}"))
    sequencer = sequencer_of(scene.deployment)
    while sequencer.step() is not None:
        pass


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("text", ['a "quoted" one', "a\\b", "a\nb", "a\x01b", "\x7f", "\u2028", "Größe"])
def test_events_whose_texts_need_escapes_hold(scene: Scene, text: str) -> None:
    for number in range(168):
        changed = {"actor": text, "workload": text} if number % 50 == 0 else {}
        scene.deployment.audit.append(make_event(f"{text}{number}", **changed))
    sequencer = sequencer_of(scene.deployment)
    while sequencer.step() is not None:
        pass
    found = scene.verify(anchors=[], strict=True)
    assert (found.suspects, found.size) == ([], SIZE + 168)
    assert scene.verify(anchors=[]).suspects == []


@pytest.mark.requirement("E-2")
def test_events_that_were_committed_late_hold(postgres_backend: Backend, tmp_path: Path) -> None:
    """Their numbers come before those of events that stand before them in the log."""
    deployment = deployment_on(postgres_backend, tmp_path / "world")
    key = SigningKey.load(deployment.settings.signing_key)
    for number in range(1, 1025):
        deployment.audit.append(make_event(f"k{number}"))
    postgres_backend.raw("ALTER TABLE pending DISABLE TRIGGER ALL")
    postgres_backend.raw("CREATE TABLE kept AS SELECT * FROM pending WHERE mod(ingest_id, 100) = 7")
    postgres_backend.raw("DELETE FROM pending WHERE mod(ingest_id, 100) = 7")
    tree = deployment.log.tree()
    for _ in range(2):
        done = deployment.log.integrate(tree, lambda size, root: key.sign_checkpoint(size, root, seconds=1))
        assert done is not None
        tree = done[0]
        postgres_backend.raw("INSERT INTO pending SELECT * FROM kept", "DELETE FROM kept")
    found = verify(deployment.log.database, key.public, [], processes=1)
    assert [suspect for suspect in found.suspects if suspect.what != SCHEMA] == []
    assert found.size == 1024


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE event ALTER COLUMN version TYPE varchar(20)",
        "ALTER TABLE event ALTER COLUMN received_us TYPE numeric",
        "ALTER TABLE event ALTER COLUMN actor DROP NOT NULL",
        "ALTER TABLE event ADD COLUMN comment text",
    ],
)
def test_a_column_of_another_kind_is_found(postgres_backend: Backend, statement: str) -> None:
    postgres_backend.raw(statement)
    (problem,) = schema_problems(postgres_backend.database())
    assert problem.startswith(f"the column {statement.split()[5]} of event")


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tile SET root = :bytes32 WHERE level = 0 AND idx = 1",
        "UPDATE tile SET data = :bytes8192 WHERE level = 0 AND idx = 1",
        "DELETE FROM tile WHERE idx = 1",
        "UPDATE tile SET idx = 7 WHERE idx = 1",
    ],
)
def test_a_changed_tile_is_found(scene: Scene, statement: str) -> None:
    scene.attack(statement, bytes32=bytes(32), bytes8192=bytes(8192))
    found = scene.verify()
    assert not found.holds
    assert found.suspects[0].seq == 256


@pytest.mark.requirement("E-2")
def test_a_duplicate_that_the_index_would_have_refused_is_found(scene: Scene) -> None:
    sqlite = scene.backend.name == "sqlite"
    scene.attack(
        "DROP INDEX event_key" if sqlite else "ALTER TABLE event DROP CONSTRAINT event_key",
        insert_of(make_event("k5", occurred_us=9, received_us=9)).replace(":", "\\:"),
    )
    assert SCHEMA in scene.found()


@pytest.mark.requirement("E-2")
def test_protection_that_is_switched_off_is_found(scene: Scene) -> None:
    if scene.backend.name == "sqlite":
        scene.backend.raw("DROP TRIGGER event_no_update")
    else:
        scene.backend.raw("ALTER TABLE event DISABLE TRIGGER event_no_change")
    found = scene.verify()
    assert [suspect.what for suspect in found.suspects] == [SCHEMA]
    if scene.backend.name != "sqlite":
        scene.backend.raw(
            "ALTER TABLE event ENABLE ALWAYS TRIGGER event_no_change",
            "CREATE OR REPLACE FUNCTION airlock_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RETURN NEW; END $$",
        )
        assert SCHEMA in scene.found()


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize(
    "statements",
    [
        [
            """CREATE TRIGGER event_lost BEFORE INSERT ON event FOR EACH ROW
            EXECUTE FUNCTION airlock_append_only()"""
        ],
        ["CREATE RULE lost AS ON INSERT TO event DO INSTEAD NOTHING"],
        ["ALTER TABLE event ENABLE ROW LEVEL SECURITY"],
        ["CREATE TABLE shadow () INHERITS (event)"],
        [
            "ALTER TABLE event DROP CONSTRAINT event_key",
            """ALTER TABLE event ADD CONSTRAINT event_key
            EXCLUDE USING hash (key WITH =) WHERE (kind <> 'task.outcome')""",
        ],
        [
            "ALTER TABLE event DROP CONSTRAINT event_key",
            "ALTER TABLE event ADD CONSTRAINT event_key UNIQUE (key, ingest_id)",
        ],
        [
            "DROP TRIGGER event_queue ON event",
            """CREATE TRIGGER event_queue AFTER INSERT ON event FOR EACH ROW WHEN (NEW.kind <> 'x')
            EXECUTE FUNCTION airlock_queue()""",
            "ALTER TABLE event ENABLE ALWAYS TRIGGER event_queue",
        ],
    ],
)
def test_what_was_added_to_the_tables_of_postgresql_is_found(
    postgres_backend: Backend, statements: list[str]
) -> None:
    assert schema_problems(postgres_backend.database()) == []
    postgres_backend.raw(*statements)
    assert len(schema_problems(postgres_backend.database())) == 1


@pytest.mark.requirement("E-2")
def test_a_receipt_that_no_anchor_gave_is_found(scene: Scene) -> None:
    name = anchors_of(scene.deployment.settings)[0].name
    scene.attack("INSERT INTO anchor_receipt (anchor, tree_size) VALUES (:name, 900)", name=name)
    assert scene.found() == {ROLLED_BACK}


@pytest.mark.requirement("E-2", "E-5")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM personal",
        "UPDATE personal SET subject = 'omar'",
        "UPDATE personal SET release_id = 'r-2'",
        "UPDATE personal SET recorded_us = 7",
        "UPDATE personal SET commitment = :bytes32",
        "UPDATE personal SET wrapped_key = :bytes32",
        "UPDATE personal SET sealed = :bytes32",
    ],
)
def test_a_text_that_was_removed_or_changed_without_a_record_is_found(scene: Scene, statement: str) -> None:
    scene.attack(statement, bytes32=bytes(range(32)))
    assert scene.found() == {PERSONAL}


def test_an_event_with_two_meanings_is_found_when_form_is_checked_too(scene: Scene) -> None:
    event = make_event("twice", received_us=1)
    scene.attack(insert_of(event, data='{"n":1,"n":2}').replace(":", "\\:"))
    scene.attack("INSERT INTO pending SELECT max(ingest_id) FROM event")
    sequencer_of(scene.deployment).step()
    assert MALFORMED in scene.found(strict=True, anchors=[])
    with pytest.raises(InvalidInputError, match="duplicate key"):
        scene.deployment.audit.events(key="twice")


# Every field and every byte


def _columns(scene: Scene) -> list[tuple[str, str, Any]]:
    """A value of each column that can be written, from the first row of each table."""
    found = []
    with scene.as_superuser() as connection:
        for table in TABLES:
            row = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings().all()  # noqa: S608
            if row:
                found += [(table, name, value) for name, value in row[0].items()]
    # Identities cannot be written; a receipt of an anchor that is not looked at says nothing to anybody.
    left_out = {("event", "ingest_id"), ("anchor_receipt", "anchor")}
    return [one for one in found if one[:2] not in left_out]


def _mutated(value: Any) -> Iterator[Any]:
    if isinstance(value, int):
        yield from (value + 1_000_000, -value - 1)
    elif isinstance(value, str):
        for place in {0, len(value) // 2, len(value) - 1}:
            yield value[:place] + ("x" if value[place] != "x" else "y") + value[place + 1 :]
    else:
        data = bytes(value)
        for place in {0, len(data) // 2, len(data) - 1}:
            yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.slow
@pytest.mark.requirement("E-2")
def test_every_field_of_every_table_is_covered(scene: Scene) -> None:
    scene.deployment.audit.append(make_event("waits"))
    columns = _columns(scene)
    assert {table for table, _, _ in columns} == set(TABLES)
    assert len(columns) == 27
    missed = []
    for table, name, value in columns:
        where = f"UPDATE {table} SET {name} = :new WHERE {name} = :old"  # noqa: S608
        if table == "event":
            where += " AND ingest_id = 1"
        now = value
        for changed in _mutated(value):
            try:
                scene.attack(where, new=changed, old=now)
            except sa.exc.DBAPIError:
                continue  # the database itself refuses it
            now = changed
            if scene.verify().holds:
                missed.append((table, name, changed))
        scene.attack(where, new=value, old=now)
        assert scene.verify().holds
    assert missed == []


@pytest.mark.requirement("E-2")
def test_every_byte_of_a_checkpoint_is_covered(scene: Scene) -> None:
    note = scene.deployment.log.head().note
    scene.attack("DELETE FROM checkpoint WHERE tree_size < 600")
    for place in range(0, len(note), 3):
        changed = note[:place] + ("A" if note[place] != "A" else "B") + note[place + 1 :]
        assert not _note_holds(scene, changed), place


def _note_holds(scene: Scene, note: str) -> bool:
    from airlock.services.verify import _Keys

    log = scene.deployment.log
    head = log.head()
    return _Keys(scene.pinned, log, Verification()).check(note, head.size, head.root) is None


# Keys that change, and logs that are begun anew


@pytest.mark.requirement("E-2")
def test_a_rotated_key_is_followed_from_either_end(scene: Scene) -> None:
    old = scene.pinned
    _rotate(scene)
    scene.deployment.audit.append(make_event("after"))
    sequencer = sequencer_of(scene.deployment)
    sequencer.step()
    sequencer.publish()
    new = read_public_key(public_path(scene.deployment.settings.signing_key))
    assert new != old
    assert Checkpoint.parse(scene.deployment.log.head().note).note.signed_by(new)
    for pinned in (old, new):
        found = scene.verify(pinned=pinned)
        assert found.suspects == [], found.suspects


@pytest.mark.requirement("E-2")
def test_a_rebuilt_log_cannot_name_the_pinned_key_as_its_successor(scene: Scene) -> None:
    from airlock.adapters.audit.keys import rotation_statement

    thief = SigningKey.generate(scene.pinned.name)
    statement = rotation_statement(thief, scene.pinned, seconds=1)
    scene.deployment.audit.append(
        make_event("forged", kind=Kind.KEY_ROTATED, data={"statement": statement, "reason": "x"})
    )
    log = scene.deployment.log
    log.integrate(log.tree(), lambda size, root: thief.sign_checkpoint(size, root, seconds=1))
    scene.rebuild(thief)
    assert KEY in scene.found(anchors=[])


def _rotate(scene: Scene) -> None:
    """Rotate while a sequencer works, as an operator does."""
    import threading

    stop = threading.Event()
    errors: list[Any] = []
    worker = threading.Thread(target=sequencer_of(scene.deployment).run, args=(stop, errors.append))
    worker.start()
    try:
        rotate_key(scene.deployment, actor="omar", reason="a year has passed")
    finally:
        stop.set()
        worker.join()
    assert errors == []


@pytest.mark.requirement("E-2")
def test_the_old_key_cannot_sign_after_it_named_its_successor(scene: Scene) -> None:
    thief = scene.key
    _rotate(scene)
    scene.deployment.audit.append(make_event("forged"))
    log = scene.deployment.log
    log.integrate(log.tree(), lambda size, root: thief.sign_checkpoint(size, root, seconds=1))
    assert KEY in scene.found(anchors=[])


def test_a_statement_that_the_old_key_did_not_sign_changes_nothing(scene: Scene) -> None:
    other = SigningKey.generate(scene.pinned.name)
    from airlock.adapters.audit.keys import rotation_statement

    statement = rotation_statement(other, SigningKey.generate(scene.pinned.name).public, seconds=1)
    for number, text in enumerate([statement, "nonsense"]):
        scene.deployment.audit.append(
            make_event(f"forged{number}", kind=Kind.KEY_ROTATED, data={"statement": text})
        )
    sequencer = sequencer_of(scene.deployment)
    while sequencer.step() is not None:
        pass
    sequencer.publish()
    found = scene.verify()
    assert found.suspects == []
    assert any("claims a new key" in notice for notice in found.notices)


@pytest.mark.requirement("E-2")
def test_a_log_restored_from_an_old_backup_stops_and_is_begun_anew_under_another_name(
    scene: Scene, tmp_path: Path
) -> None:
    from airlock.core.errors import IntegrityError

    scene.attack(
        "DELETE FROM event WHERE ingest_id IN (SELECT ingest_id FROM leaf WHERE seq >= 300)",
        "DELETE FROM leaf WHERE seq >= 300",
        "DELETE FROM checkpoint WHERE tree_size > 300",
        "DELETE FROM tile WHERE idx > 0",
        "DELETE FROM anchor_receipt WHERE tree_size > 300",
    )
    with pytest.raises(IntegrityError, match="the anchor is ahead of the database"):
        sequencer_of(scene.deployment).start()
    restart_log(scene.deployment, actor="omar", reason="restored from the backup of yesterday")
    sequencer = sequencer_of(scene.deployment)
    sequencer.start()
    sequencer.step()
    sequencer.publish()
    found = scene.verify()
    assert {suspect.what for suspect in found.suspects} == {RESTARTED}
    accepted = scene.verify(accept_restarts=True)
    assert accepted.suspects == []
    assert any("begun anew after 300" in notice for notice in accepted.notices)
    anchor = anchors_of(scene.deployment.settings)[0]
    latest = anchor.latest()
    assert latest is not None
    assert Checkpoint.parse(latest).origin != scene.pinned.name


@pytest.mark.requirement("E-2")
def test_a_copy_holds_and_a_changed_copy_does_not(scene: Scene, tmp_path: Path) -> None:
    from airlock.adapters.audit.database import ReadOnlyDatabase
    from airlock.services.export_log import export_log

    target = tmp_path / "copy.db"
    assert export_log(scene.deployment.log.database, target) == SIZE
    target.chmod(0o444)
    anchors = anchors_of(scene.deployment.settings)
    url = f"sqlite:///{target}"
    assert verify(ReadOnlyDatabase(url), scene.pinned, anchors, processes=1).suspects == []
    assert not list(tmp_path.glob(".copy.db*"))
    changed = tmp_path / "changed.db"
    shutil.copy(target, changed)
    changed.chmod(0o644)
    data = changed.read_bytes()
    # The index has the key as well.
    changed.write_bytes(data.replace(b"testk77task.started", b"testk98task.started"))
    found = verify(ReadOnlyDatabase(f"sqlite:///{changed}"), scene.pinned, anchors, processes=1)
    assert found.suspects[0].seq == 78


def test_an_event_is_what_its_proof_says(scene: Scene) -> None:
    log: Log = scene.deployment.log
    entry = log.entry(333)
    proof = log.prove(333)
    proof.verify(entry.body)
    assert proof.checkpoint.note.signed_by(scene.pinned)
    assert Event.from_bytes(entry.body).key == "k332"
