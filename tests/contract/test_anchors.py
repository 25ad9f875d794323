"""What every anchor promises, proved on all of them with the same tests, and what each adds."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.adapters.anchors import file as file_module
from airlock.adapters.anchors import git as git_module
from airlock.adapters.anchors import git_command, open_anchor, open_anchors, rules
from airlock.adapters.anchors import s3 as s3_module
from airlock.adapters.anchors import slack as slack_module
from airlock.adapters.anchors.rules import MAX_NOTE_BYTES
from airlock.adapters.mlflow_registry import quiet_mlflow
from airlock.core.errors import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    UnavailableError,
)
from airlock.ports import Anchor
from airlock.proof import Checkpoint, PublicKey, sign_note
from tests.support.deployments import ManualClock, fast_folder, messages_of
from tests.support.ports import free_port

FORK = multiprocessing.get_context("fork")
ORIGIN = "log.example/loans"
TOKEN = "xoxb-1234-secret"


def make_note(size: int, *, root: str = "", origin: str = ORIGIN, seconds: int = 0) -> str:
    """A checkpoint as the sequencer makes it; anchors do not look at signatures."""
    digest = hashlib.sha256(f"{size} {root}".encode()).digest()
    return sign_note(
        Checkpoint.text(origin, size, digest),
        PublicKey(origin, bytes(32)),
        lambda message: hashlib.sha512(message).digest(),
        seconds=seconds,
    )


# The places


@dataclass
class Place:
    """An empty place of one kind; ``spoil`` changes what it holds behind the anchor's back."""

    kind: str
    url: str
    away: str
    spoil: Callable[[], None]
    options: dict[str, Any] = field(default_factory=dict)

    def open(self) -> Anchor:
        return open_anchor(self.url, now=ManualClock(), **self.options)

    def open_away(self) -> Anchor:
        return open_anchor(self.away, now=ManualClock(), **self.options)


def git(folder: Path, *arguments: str, data: str = "") -> str:
    environment = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "Eve", f"GIT_{who}_EMAIL": "eve@example.org"}
    ended = subprocess.run(
        ["git", "-C", str(folder), *arguments],  # noqa: S607
        input=data,
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return ended.stdout.strip()


def bare(path: Path) -> Path:
    git(path.parent, "init", "--quiet", "--bare", str(path))
    return path


def foreign_commit(repository: Path) -> None:
    """Somebody puts a commit on the branch that holds no checkpoint."""
    parents = git(repository, "for-each-ref", "--format=%(objectname)", "refs/heads/airlock").split()
    tree = git(repository, "mktree", "--missing")
    commit = git(
        repository, "commit-tree", tree, "-m", "x", *[part for name in parents for part in ("-p", name)]
    )
    git(repository, "update-ref", "refs/heads/airlock", commit)


def file_place(folder: Path, _: pytest.FixtureRequest) -> Place:
    (folder / "kept").mkdir()
    path = folder / "kept" / file_module.FILE

    def spoil() -> None:
        data = path.read_bytes()
        path.write_bytes(data[:-30] + b"#" + data[-29:])

    return Place("file", f"file://{folder}/kept", f"file://{folder}/gone", spoil)


def git_place(folder: Path, _: pytest.FixtureRequest) -> Place:
    repository = bare(folder / "audit.git")
    return Place("git", f"git://{repository}", f"git://{folder}/gone", lambda: foreign_commit(repository))


def remote_git_place(folder: Path, _: pytest.FixtureRequest) -> Place:
    repository = bare(folder / "audit.git")
    return Place(
        "git+file",
        f"git+file://{repository}",
        f"git+file://{folder}/gone",
        lambda: foreign_commit(repository),
        {"cache": folder / "cache"},
    )


@dataclass
class Mlflow:
    """A real MLflow on SQLite."""

    uri: str
    client: Any


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    quiet_mlflow()
    import mlflow

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.search_experiments()
    return Mlflow(uri, client)


def mlflow_place(folder: Path, request: pytest.FixtureRequest) -> Place:
    mlflow: Mlflow = request.getfixturevalue("mlflow")
    name = f"audit-{uuid.uuid4().hex}"

    def spoil() -> None:
        experiment = mlflow.client.get_experiment_by_name(name)
        mlflow.client.set_experiment_tag(experiment.experiment_id, "airlock.audit.checkpoint", "10 entries")

    return Place("mlflow", f"mlflow://{name}", f"mlflow://{name}", spoil, {"tracking_uri": mlflow.uri})


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an object store. One request at a time, so that its conditions are as atomic as Amazon's."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *arguments: Any, **_: Any) -> None:
            pass

    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: Any, start_response: Any) -> list[bytes]:
        with lock:
            return [b"".join(app(environ, start_response))]

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of the store, and nothing of the developer's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def s3_client(address: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=address, region_name="us-east-1")


def bucket_of(request: pytest.FixtureRequest, *, lock: bool) -> tuple[str, str, Any]:
    request.getfixturevalue("aws")
    address: str = request.getfixturevalue("s3")
    name = f"audit-{uuid.uuid4().hex}"
    client = s3_client(address)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    return name, address, client


def s3_place(folder: Path, request: pytest.FixtureRequest) -> Place:
    bucket, address, client = bucket_of(request, lock=False)

    def spoil() -> None:
        key = client.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"]
        client.put_object(Bucket=bucket, Key=key, Body=b"10 entries")

    query = f"endpoint_url={address}&region=us-east-1"
    return Place("s3", f"s3://{bucket}/log?{query}", f"s3://not-{bucket}/log?{query}", spoil)


def locked_s3_place(folder: Path, request: pytest.FixtureRequest) -> Place:
    bucket, address, client = bucket_of(request, lock=True)

    def spoil() -> None:
        """Lock or not, a newer version can be put before the first."""
        key = client.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"]
        client.put_object(
            Bucket=bucket, Key=key, Body=client.get_object(Bucket=bucket, Key=key)["Body"].read()
        )

    query = f"endpoint_url={address}&region=us-east-1&retention_days=30"
    return Place("s3-locked", f"s3://{bucket}?{query}", f"s3://not-{bucket}/log?{query}", spoil)


class FakeSlack:
    """Slack's methods that an anchor calls, with messages in memory."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.page = 2
        self.error: dict[str, Any] | None = None
        self.before_post: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                query = urlsplit(self.path).query
                values: dict[str, Any] = {key: found[0] for key, found in parse_qs(query).items()}
                if body.startswith("{"):
                    values |= json.loads(body)
                else:
                    values |= {key: found[0] for key, found in parse_qs(body).items()}
                allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                method = urlsplit(self.path).path.rpartition("/")[2]
                found = slack.call(method, values) if allowed else {"ok": False, "error": "invalid_auth"}
                data = json.dumps(found).encode()
                self.send_response(429 if found.get("error") == "ratelimited" else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def call(self, method: str, values: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(method)
        if self.error is not None:
            return self.error
        if method == "auth.test":
            return {"ok": True, "user_id": "UBOT", "bot_id": "BBOT"}
        if values.get("channel") != "C0123456789":
            return {"ok": False, "error": "channel_not_found"}
        if method == "chat.postMessage":
            self.before_post()
            return {"ok": True, "ts": self.post("UBOT", **values)}
        assert method == "conversations.history"
        start = int(values.get("cursor") or 0)
        with self._lock:
            newest_first = self.messages[::-1]
        page = [dict(message) for message in newest_first[start : start + self.page]]
        if values.get("include_all_metadata") not in ("1", "true", True):
            for message in page:
                message.pop("metadata", None)
        more = str(start + self.page) if start + self.page < len(newest_first) else ""
        return {"ok": True, "messages": page, "response_metadata": {"next_cursor": more}}

    def post(self, user: str, **values: Any) -> str:
        parsed = {
            key: json.loads(value) if isinstance(value, str) and key in ("blocks", "metadata") else value
            for key, value in values.items()
        }
        with self._lock:
            ts = f"{1767225600 + len(self.messages)}.000100"
            self.messages.append({"type": "message", "user": user, "ts": ts, **parsed})
        return ts


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlack]:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(slack_module.VARIABLE, TOKEN)
    fake = FakeSlack()
    yield fake
    fake.close()


def slack_place(folder: Path, request: pytest.FixtureRequest) -> Place:
    slack: FakeSlack = request.getfixturevalue("slack")

    def spoil() -> None:
        slack.messages[-1]["metadata"]["event_payload"]["note"] = "10 entries"

    base = "slack://C0123456789?base_url="
    return Place("slack", base + slack.url, f"{base}http://127.0.0.1:{free_port()}/api/", spoil)


PLACES: dict[str, Callable[[Path, pytest.FixtureRequest], Place]] = {
    "file": file_place,
    "git": git_place,
    "git+file": remote_git_place,
    "mlflow": mlflow_place,
    "s3": s3_place,
    "s3-locked": locked_s3_place,
    "slack": slack_place,
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "mlflow")) for name in PLACES])
def place(request: pytest.FixtureRequest, folder: Path) -> Place:
    return PLACES[request.param](folder, request)


@pytest.fixture
def anchor(place: Place) -> Anchor:
    return place.open()


def publish_all(anchor: Anchor, notes: list[str]) -> None:
    newest = anchor.latest()
    for note in notes:
        anchor.publish(note, after=newest)
        newest = note


# What every anchor promises


def test_an_empty_place_holds_nothing(anchor: Anchor) -> None:
    assert anchor.latest() is None
    assert anchor.history() == []


def test_what_is_published_is_the_newest_for_everybody(place: Place) -> None:
    note = make_note(1)
    receipt = place.open().publish(note, after=None)
    assert receipt
    assert place.open().latest() == note
    assert place.open().history() == [note]


def test_publishing_the_newest_again_is_free(place: Place) -> None:
    anchor = place.open()
    first, second = make_note(1), make_note(2)
    publish_all(anchor, [first, second])
    before = anchor.history()
    receipts = {anchor.publish(second, after=after) for after in (None, first, second)}
    assert len(receipts) == 1
    assert anchor.history() == before


def test_the_same_statement_signed_again_is_the_same_checkpoint(anchor: Anchor) -> None:
    first, again = make_note(3, seconds=1), make_note(3, seconds=2)
    assert first != again
    receipt = anchor.publish(first, after=None)
    assert anchor.publish(again, after=first) == receipt
    assert anchor.history() == [first]


def test_a_stale_after_is_refused_and_nothing_is_written(anchor: Anchor) -> None:
    one, two, three = make_note(1), make_note(2), make_note(3)
    with pytest.raises(ConflictError):
        anchor.publish(two, after=one)
    assert anchor.history() == []
    publish_all(anchor, [one, two])
    before = anchor.history()
    for stale in (None, one, three):
        with pytest.raises(ConflictError) as caught:
            anchor.publish(three, after=stale)
        assert caught.value.fix
    assert anchor.history() == before
    assert anchor.latest() == two


@pytest.mark.parametrize("size", [0, 4, 5])
def test_a_checkpoint_that_does_not_grow_is_refused(anchor: Anchor, size: int) -> None:
    held = make_note(5)
    anchor.publish(held, after=None)
    with pytest.raises(ConflictError):
        anchor.publish(make_note(size, root="another"), after=held)
    assert anchor.history() == [held]


def test_the_history_is_in_order_whatever_the_sizes(place: Place) -> None:
    sizes = [0, 1, 2, 9, 10, 11, 99, 100, 1_000_000, 10**17, 9_999_999_999_999_999_999]
    notes = [make_note(size) for size in sizes]
    publish_all(place.open(), notes)
    expected = notes[-1:] if place.kind == "mlflow" else notes
    assert place.open().history() == expected
    assert place.open().latest() == notes[-1]


def test_a_log_that_was_begun_anew_follows_with_fewer_entries(place: Place) -> None:
    notes = [make_note(7), make_note(2, origin="log.example/again"), make_note(3, origin="log.example/again")]
    publish_all(place.open(), notes)
    assert place.open().latest() == notes[-1]
    assert place.open().history() == (notes[-1:] if place.kind == "mlflow" else notes)


NO_CHECKPOINTS = {
    "empty": "",
    "a sentence": "10 entries",
    "no signature": Checkpoint.text(ORIGIN, 1, bytes(32)),
    "a negative size": make_note(1).replace("\n1\n", "\n-1\n"),
    "another number": make_note(1).replace("\n1\n", "\n٣\n"),
    "a short root": sign_note("o\n1\nAAAA\n", PublicKey("o", bytes(32)), lambda _: bytes(64), seconds=0),
    "a control character": make_note(1).replace(ORIGIN, f"{ORIGIN}\x1b[2J"),
    "a lone surrogate": make_note(1).replace(ORIGIN, f"{ORIGIN}\ud800"),
    "a zero byte": make_note(1).replace(ORIGIN, f"{ORIGIN}\0"),
    "windows lines": make_note(1).replace("\n", "\r\n"),
    "too long": make_note(1).replace("\n\n", f"\n{'x' * MAX_NOTE_BYTES}\n\n"),
    "too long in bytes": make_note(1).replace("\n\n", f"\n{'ß' * (MAX_NOTE_BYTES - 500)}\n\n"),
    "huge": "x" * 5_000_000,
}


def test_what_is_no_checkpoint_is_not_kept(anchor: Anchor) -> None:
    for text in NO_CHECKPOINTS.values():
        with pytest.raises(InvalidInputError):
            anchor.publish(text, after=None)
    assert anchor.history() == []


def test_the_longest_checkpoint_and_every_printable_character_come_back(anchor: Anchor) -> None:
    extension = '- \\ " \' & < > {{ %s * _ ` ~ ä \U0001f600 </script>\n\n{"note":"x"}\n'
    note = make_note(1).replace("\n\n", f"\n{extension}\n\n", 1)
    note = note.replace("\n\n", f"\n{'x' * (MAX_NOTE_BYTES - len(note.encode()) - 1)}\n\n", 1)
    assert len(note.encode()) == MAX_NOTE_BYTES
    anchor.publish(note, after=None)
    assert anchor.latest() == note
    assert anchor.history() == [note]


def test_what_was_changed_there_is_an_integrity_error_and_nothing_is_written_on_top(place: Place) -> None:
    anchor = place.open()
    held = make_note(10)
    anchor.publish(held, after=None)
    place.spoil()
    for act in (anchor.latest, anchor.history, lambda: anchor.publish(make_note(11), after=held)):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.where
        assert caught.value.fix


def test_a_place_that_is_away_is_unavailable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    if place.kind == "mlflow":
        place.options["tracking_uri"] = "http://eve:hunter2@127.0.0.1:1"
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    anchor = place.open_away()
    for act in (anchor.latest, anchor.history, lambda: anchor.publish(make_note(1), after=None)):
        with pytest.raises(UnavailableError) as caught:
            act()
        assert caught.value.fix
        text = messages_of(caught.value)
        assert not any(secret in text for secret in (TOKEN, "hunter2", "secret-of-the-test"))


def attempt(anchor: Anchor, note: str, after: str | None) -> bool:
    try:
        anchor.publish(note, after=after)
    except ConflictError:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in PLACES if name != "mlflow"])
def test_of_publishers_at_once_exactly_one_wins(
    name: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[name](folder, request)
    anchors = [place.open() for _ in range(3)]
    newest: str | None = None
    for size in (1, 2, 3):
        notes = [make_note(size, root=f"of publisher {n}") for n in range(len(anchors))]
        barrier = threading.Barrier(len(anchors))

        def publish(
            anchor: Anchor, note: str, barrier: threading.Barrier = barrier, after: str | None = newest
        ) -> bool:
            barrier.wait()
            return attempt(anchor, note, after)

        with ThreadPoolExecutor(len(anchors)) as pool:
            won = list(pool.map(publish, anchors, notes))
        assert sum(won) == 1
        newest = notes[won.index(True)]
        assert place.open().latest() == newest
    assert len(place.open().history()) == 3


@pytest.mark.slow
def test_of_two_publishers_in_mlflow_the_one_overtaken_before_it_reads_again_is_told(
    folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mlflow_place(folder, request)
    first, second = place.open(), place.open()
    held = make_note(1)
    first.publish(held, after=None)
    client = first._client  # type: ignore[attr-defined]
    write = client.set_experiment_tag

    def overtaken(*arguments: Any) -> None:
        write(*arguments)
        second.publish(make_note(3), after=make_note(2))

    monkeypatch.setattr(client, "set_experiment_tag", overtaken)
    with pytest.raises(ConflictError):
        first.publish(make_note(2), after=held)
    assert first.latest() == make_note(3)


def _race(place: Place, number: int, rounds: int, pipe: Any) -> None:
    won: list[str] = []
    while True:
        anchor = place.open()
        newest = anchor.latest()
        size = 1 if newest is None else Checkpoint.parse(newest).size + 1
        if size > rounds:
            break
        note = make_note(size, root=f"of process {number}")
        if attempt(anchor, note, newest):
            won.append(note)
    pipe.send(won)


@pytest.mark.parametrize("name", ["file", "git", "git+file"])
def test_processes_that_publish_against_each_other_leave_one_history(
    name: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[name](folder, request)
    rounds = 60 if name == "file" else 8
    pipes, racers = [], []
    for number in range(3):
        here, there = FORK.Pipe(duplex=False)
        racer = FORK.Process(target=_race, args=(place, number, rounds, there))
        racer.start()
        pipes.append(here)
        racers.append(racer)
    won = [note for pipe in pipes for note in pipe.recv()]
    for racer in racers:
        racer.join(30)
    assert sorted(won) == sorted(place.open().history())
    assert [Checkpoint.parse(note).size for note in place.open().history()] == list(range(1, rounds + 1))


def _publish_and_tell(place: Place, pipe: Any) -> None:
    anchor = place.open()
    newest = anchor.latest()
    size = 0 if newest is None else Checkpoint.parse(newest).size
    while True:
        size += 1
        note = make_note(size)
        anchor.publish(note, after=newest)
        newest = note
        pipe.send(note)


@pytest.mark.parametrize("name", ["file", "git", "git+file"])
def test_what_was_acknowledged_survives_kills_and_the_next_publisher_goes_on(
    name: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A killed publisher's git may still hold its locks.
    monkeypatch.setattr(git_module, "STALE_SECONDS", 0.0)
    place = PLACES[name](folder, request)
    acknowledged: list[str] = []
    for after in (1, 3, 5):
        here, there = FORK.Pipe(duplex=False)
        publisher = FORK.Process(target=_publish_and_tell, args=(place, there))
        publisher.start()
        there.close()
        acknowledged += [here.recv() for _ in range(after)]
        assert publisher.pid is not None
        os.kill(publisher.pid, signal.SIGKILL)
        publisher.join(10)
        try:
            while here.poll():
                acknowledged.append(here.recv())
        except EOFError:
            pass
        history = place.open().history()
        assert set(acknowledged) <= set(history)
        assert len(history) - len(set(acknowledged)) <= after, (
            "at most one that nobody was told about per kill"
        )
        acknowledged = history
    newest = place.open().latest()
    assert newest is not None
    place.open().publish(make_note(1_000), after=newest)
    assert place.open().latest() == make_note(1_000)


# A file


@pytest.fixture
def file_anchor(folder: Path) -> Anchor:
    return open_anchor(f"file://{folder}")


def contents(folder: Path) -> bytes:
    return (folder / file_module.FILE).read_bytes()


@pytest.mark.parametrize("zeros", [0, 1, 700])
def test_a_last_line_torn_anywhere_is_passed_over_and_cut_off_by_the_next_publisher(
    folder: Path, file_anchor: Anchor, zeros: int
) -> None:
    """``zeros``: after a power cut a file may have its new length, but not its new content."""
    first, second, third = make_note(1), make_note(2), make_note(3, root="third")
    publish_all(file_anchor, [first])
    whole = len(contents(folder))
    publish_all(file_anchor, [second])
    data = contents(folder)
    path = folder / file_module.FILE
    # Without waiting for the disk each time: 400 offsets prove the rule, not the disk.
    for offset in range(whole, len(data)):
        path.write_bytes(data[:offset] + bytes(zeros))
        assert file_anchor.latest() == first, offset
        assert file_anchor.history() == [first], offset
        file_anchor.publish(third, after=first)
        assert file_anchor.history() == [first, third], offset
        assert contents(folder) == data[:whole] + file_module._line(third), offset


def test_a_first_line_torn_anywhere_leaves_an_empty_anchor(folder: Path, file_anchor: Anchor) -> None:
    publish_all(file_anchor, [make_note(1)])
    data = contents(folder)
    for offset in range(0, len(data), 7):
        (folder / file_module.FILE).write_bytes(data[:offset])
        assert file_anchor.latest() is None
        assert file_anchor.history() == []
    file_anchor.publish(make_note(1), after=None)
    assert contents(folder) == data


def test_a_last_line_whose_beginning_never_reached_the_disk_is_torn_too(
    folder: Path, file_anchor: Anchor
) -> None:
    publish_all(file_anchor, [make_note(1), make_note(2)])
    data = contents(folder)
    second = data.index(b"\n") + 1
    (folder / file_module.FILE).write_bytes(data[:second] + bytes(100) + data[second + 100 :])
    assert file_anchor.latest() == make_note(1)
    publish_all(file_anchor, [make_note(2)])
    assert contents(folder) == data


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_changed_byte_is_never_read_as_a_checkpoint(position: int, flip: int) -> None:
    with fast_folder() as folder:
        notes = [make_note(1), make_note(2), make_note(3)]
        lines = [file_module._line(note) for note in notes]
        data = bytearray(b"".join(lines))
        at = position % len(data)
        data[at] ^= flip
        (folder / file_module.FILE).write_bytes(data)
        anchor = open_anchor(f"file://{folder}")
        try:
            found = anchor.history()
        except IntegrityError:
            return
        # The end of the file can be changed so that it looks torn: nothing else.
        assert at >= len(data) - len(lines[-1])
        assert found == notes[:2]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"x",
        b"\n",
        b"{}\n",
        b"null\n",
        b'{"note":1,"sha256":"x"}\n',
        b'{"note":"x","sha256":"y"}\n',
        b'{"note":"\\ud800","sha256":"y"}\n',
        b'{"nothing":',
        b'{"note":"' + b"x" * 20_000,
        b"[" * 100_000,
        b"[" * 5_000 + b"\n",
        b"\xff\xfe\n",
        bytes(20_000),
        bytes(500) + b"\n" + bytes(500) + b"\n",
    ],
)
def test_rubbish_behind_the_last_line_is_an_integrity_error(
    folder: Path, file_anchor: Anchor, rubbish: bytes
) -> None:
    for notes in ([], [make_note(1)]):
        publish_all(file_anchor, notes)
        before = contents(folder) if notes else b""
        (folder / file_module.FILE).write_bytes(before + rubbish)
        for act in (
            file_anchor.latest,
            file_anchor.history,
            lambda: publish_all(file_anchor, [make_note(9)]),
        ):
            with pytest.raises(IntegrityError):
                act()
        assert contents(folder) == before + rubbish
        (folder / file_module.FILE).write_bytes(before)


def test_lines_out_of_order_or_twice_are_an_integrity_error(folder: Path, file_anchor: Anchor) -> None:
    lines = [file_module._line(make_note(size)) for size in (1, 2, 3)]
    for order in ((1, 0, 2), (0, 0, 1), (0, 2, 2)):
        (folder / file_module.FILE).write_bytes(b"".join(lines[n] for n in order))
        with pytest.raises(IntegrityError, match="stands behind"):
            file_anchor.history()


@pytest.mark.slow
def test_the_newest_of_many_is_found_without_reading_the_others(folder: Path, file_anchor: Anchor) -> None:
    count = 20_000
    notes = [make_note(size) for size in range(count)]
    data = b"".join(map(file_module._line, notes))
    (folder / file_module.FILE).write_bytes(data)
    assert file_anchor.history() == notes
    (folder / file_module.FILE).write_bytes(b"#" + data[1:])
    with pytest.raises(IntegrityError):
        file_anchor.history()
    assert file_anchor.latest() == notes[-1]


def test_a_publisher_waits_for_the_disk_before_it_acknowledges(
    folder: Path, file_anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.fstat(fd).st_ino, os.fstat(fd).st_size)))
    file_anchor.publish(make_note(1), after=None)
    state = (folder / file_module.FILE).stat()
    assert (state.st_ino, state.st_size) in synced
    assert folder.stat().st_ino in {inode for inode, _ in synced}
    synced.clear()
    file_anchor.publish(make_note(1), after=None)
    assert (state.st_ino, state.st_size) in synced, "who wrote it may have died before that"


def test_a_folder_that_is_not_there_is_not_an_empty_anchor(folder: Path) -> None:
    for path in (folder / "gone", folder / "a file"):
        (folder / "a file").touch()
        with pytest.raises(UnavailableError, match="not there") as caught:
            open_anchor(f"file://{path}").latest()
        assert "mkdir -p" in caught.value.fix
    assert not (folder / "gone").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_something_else_in_the_files_place_is_an_error_at_once(
    folder: Path, file_anchor: Anchor, kind: str
) -> None:
    path = folder / file_module.FILE
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    for act in (file_anchor.latest, lambda: file_anchor.publish(make_note(1), after=None)):
        with pytest.raises((IntegrityError, UnavailableError)):
            act()


def test_a_publisher_that_hangs_with_the_lock_makes_others_fail_in_seconds(
    folder: Path, file_anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_LOCK_SECONDS", 0.05)
    file_anchor.publish(make_note(1), after=None)
    with (folder / file_module.FILE).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for act in (file_anchor.latest, lambda: file_anchor.publish(make_note(2), after=make_note(1))):
            with pytest.raises(UnavailableError, match="lock"):
                act()
    assert file_anchor.latest() == make_note(1)


def _fill(place: Place, limit: int, pipe: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    anchor = place.open()
    newest = None
    for size in range(1, 1_000):
        try:
            anchor.publish(make_note(size), after=newest)
        except BaseException as error:  # noqa: BLE001  # the parent judges what it was
            pipe.send((type(error).__name__, str(error)))
            return
        newest = make_note(size)
        pipe.send(newest)


@pytest.mark.parametrize(("name", "limit"), [("file", 5_000), ("file", 5_001), ("git", 40), ("git+file", 40)])
def test_a_write_the_system_refuses_is_unavailable_and_nothing_is_half_written(
    name: str, limit: int, folder: Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[name](folder, request)
    place.open().latest()
    here, there = FORK.Pipe(duplex=False)
    publisher = FORK.Process(target=_fill, args=(place, limit, there))
    publisher.start()
    there.close()
    acknowledged: list[str] = []
    while isinstance(message := here.recv(), str):
        acknowledged.append(message)
    publisher.join(10)
    error, text = message
    assert error == "UnavailableError", text
    assert place.open().history() == acknowledged
    if name == "file":
        assert acknowledged
        assert contents(folder / "kept").endswith(b"\n")
    publish_all(place.open(), [make_note(10_000)])
    assert place.open().latest() == make_note(10_000)


def _as_nobody(place: Place, newest: str, pipe: Any) -> None:
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    anchor = place.open()
    try:
        read = anchor.latest()
        anchor.publish(make_note(2), after=newest)
    except BaseException as error:  # noqa: BLE001  # the parent judges what it was
        pipe.send((read, type(error).__name__, str(error)))
        return
    pipe.send((read, "published", ""))


@pytest.mark.parametrize("name", ["file", "git"])
def test_a_place_that_may_only_be_read_can_be_audited_and_not_written(
    name: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    place = PLACES[name](folder, request)
    place.open().publish(make_note(1), after=None)
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    here, there = FORK.Pipe(duplex=False)
    reader = FORK.Process(target=_as_nobody, args=(place, make_note(1), there))
    reader.start()
    read, error, text = here.recv()
    reader.join(10)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    assert read == make_note(1)
    assert error == "UnavailableError", text
    assert "Permission denied" in text


# Git


@pytest.fixture
def repository(folder: Path) -> Path:
    return bare(folder / "audit.git")


def test_each_checkpoint_is_a_commit_on_the_one_before(repository: Path) -> None:
    clock = ManualClock()
    anchor = open_anchor(f"git://{repository}?branch=audit/loans", now=clock)
    receipts = [anchor.publish(make_note(1), after=None)]
    clock.advance(hours=1)
    receipts.append(anchor.publish(make_note(2), after=make_note(1)))
    log = git(repository, "log", "--format=%H %s %ct %an", "audit/loans").splitlines()
    assert log == [
        f"{receipts[1].removeprefix('commit ')} tree size 2 1767229200 Airlock",
        f"{receipts[0].removeprefix('commit ')} tree size 1 1767225600 Airlock",
    ]
    assert git(repository, "ls-tree", "--name-only", "audit/loans") == "checkpoint"
    assert git(repository, "show", "audit/loans:checkpoint") + "\n" == make_note(2)
    git(repository, "fsck", "--strict")


def test_a_repository_with_a_work_tree_stays_as_it_is(folder: Path) -> None:
    work = folder / "work"
    git(folder, "init", "--quiet", "-b", "main", str(work))
    (work / "README").write_text("mine")
    git(work, "add", "README")
    git(work, "commit", "-m", "mine")
    (work / "README").write_text("changed")
    before = git(work, "status", "--porcelain", "--branch"), git(work, "rev-parse", "HEAD")
    publish_all(open_anchor(f"git://{work}"), [make_note(1), make_note(2)])
    assert (git(work, "status", "--porcelain", "--branch"), git(work, "rev-parse", "HEAD")) == before
    assert open_anchor(f"git://{work}").history() == [make_note(1), make_note(2)]


def test_a_linked_work_tree_and_packed_refs_work_too(folder: Path) -> None:
    work = folder / "work"
    git(folder, "init", "--quiet", "-b", "main", str(work))
    git(work, "commit", "--allow-empty", "-m", "first")
    git(work, "worktree", "add", "--quiet", str(folder / "linked"))
    publish_all(open_anchor(f"git://{folder / 'linked'}"), [make_note(1)])
    git(work, "gc", "--quiet")
    publish_all(open_anchor(f"git://{work}"), [make_note(2)])
    assert open_anchor(f"git://{folder / 'linked'}").history() == [make_note(1), make_note(2)]


@pytest.mark.parametrize("name", ["git", "git+file"])
def test_hooks_settings_and_variables_of_the_user_do_not_reach_it(
    name: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = PLACES[name](folder, request)
    hooks = folder / "hooks"
    hooks.mkdir()
    for hook in ("reference-transaction", "pre-push", "post-update"):
        (hooks / hook).write_text("#!/bin/sh\nexit 1\n")
        (hooks / hook).chmod(0o755)
    settings = folder / ".gitconfig"
    settings.write_text(
        f"[core]\n\thooksPath = {hooks}\n[commit]\n\tgpgsign = true\n[push]\n\tgpgSign = true\n"
        "[gpg]\n\tprogram = /bin/false\n[user]\n\tuseConfigOnly = true\n"
    )
    monkeypatch.setenv("HOME", str(folder))
    # A remote's hooks are the remote's business; this one has none.
    git(folder / "audit.git", "config", "core.hooksPath", str(hooks) if name == "git" else "/nowhere")
    monkeypatch.setenv("GIT_DIR", str(folder / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(folder / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(folder / "objects"))
    monkeypatch.setenv("GIT_TRACE", str(folder / "trace"))
    publish_all(place.open(), [make_note(1), make_note(2)])
    assert place.open().history() == [make_note(1), make_note(2)]
    assert not (folder / "trace").exists()


def test_a_lock_that_a_killed_git_left_behind_is_removed(repository: Path) -> None:
    anchor = open_anchor(f"git://{repository}")
    publish_all(anchor, [make_note(1)])
    lock = repository / "refs/heads/airlock.lock"
    lock.touch()
    os.utime(lock, (time.time() - 60, time.time() - 60))
    publish_all(anchor, [make_note(2)])
    assert anchor.history() == [make_note(1), make_note(2)]
    assert not lock.exists()


def test_a_lock_of_a_living_git_is_respected(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(git_command._CONFIG, "core.filesRefLockTimeout", "10")
    anchor = open_anchor(f"git://{repository}")
    publish_all(anchor, [make_note(1)])
    lock = repository / "refs/heads/airlock.lock"
    lock.touch()
    with pytest.raises(UnavailableError, match=r"airlock\.lock"):
        anchor.publish(make_note(2), after=make_note(1))
    assert lock.exists()
    assert anchor.history() == [make_note(1)]


def test_locks_in_the_private_copy_of_a_remote_do_not_stay_for_ever(repository: Path, folder: Path) -> None:
    anchor = open_anchor(f"git+file://{repository}", cache=folder / "cache")
    publish_all(anchor, [make_note(1)])
    (copy,) = (folder / "cache").iterdir()
    for name in ("config.lock", "packed-refs.lock", "refs/heads/airlock.lock", "HEAD.lock"):
        (copy / name).touch()
        os.utime(copy / name, (time.time() - 60, time.time() - 60))
    publish_all(anchor, [make_note(2)])
    assert anchor.history() == [make_note(1), make_note(2)]


def test_a_copy_of_a_remote_that_was_lost_or_half_made_is_made_again(repository: Path, folder: Path) -> None:
    anchor = open_anchor(f"git+file://{repository}", cache=folder / "cache")
    publish_all(anchor, [make_note(1)])
    (copy,) = (folder / "cache").iterdir()
    shutil.rmtree(copy)
    copy.mkdir()
    (copy / "HEAD").write_text("ref: refs/heads/main\n")
    assert anchor.history() == [make_note(1)]
    publish_all(anchor, [make_note(2)])
    assert anchor.latest() == make_note(2)


def test_objects_of_a_killed_publisher_do_no_harm(repository: Path) -> None:
    anchor = open_anchor(f"git://{repository}")
    publish_all(anchor, [make_note(1)])
    command = git_command.Git(repository, "test")
    command.make_commit(make_note(2), command.tip("refs/heads/airlock"), 1_767_225_600)
    assert anchor.latest() == make_note(1)
    publish_all(anchor, [make_note(2), make_note(3)])
    assert anchor.history() == [make_note(1), make_note(2), make_note(3)]


@pytest.mark.parametrize("damage", ["garbage", "empty", "unknown commit", "lost object", "damaged object"])
def test_a_branch_that_cannot_be_read_is_not_an_empty_anchor(repository: Path, damage: str) -> None:
    anchor = open_anchor(f"git://{repository}")
    publish_all(anchor, [make_note(1)])
    ref = repository / "refs/heads/airlock"
    blob = git(repository, "rev-parse", "airlock:checkpoint")
    object_file = repository / "objects" / blob[:2] / blob[2:]
    object_file.chmod(0o644)
    if damage == "lost object":
        object_file.unlink()
    elif damage == "damaged object":
        object_file.write_bytes(object_file.read_bytes()[:20])
    else:
        ref.write_text({"garbage": "rubbish\n", "empty": "", "unknown commit": "1" * 40 + "\n"}[damage])
    for act in (anchor.latest, anchor.history, lambda: anchor.publish(make_note(2), after=make_note(1))):
        with pytest.raises(IntegrityError):
            act()


def test_a_file_of_a_gigabyte_in_a_commit_is_not_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = git(repository, "hash-object", "-w", os.fspath(_sparse(repository.parent / "large", 50_000_000)))
    tree = git(repository, "mktree", data=f"100644 blob {blob}\tcheckpoint\n")
    git(repository, "update-ref", "refs/heads/airlock", git(repository, "commit-tree", tree, "-m", "x"))
    asked: list[str] = []
    ask = git_command.Git.ask

    def watched(self: git_command.Git, *arguments: str, data: bytes = b"") -> git_command.Result:
        result = ask(self, *arguments, data=data)
        asked.append(str(len(result.output)))
        return result

    monkeypatch.setattr(git_command.Git, "ask", watched)
    with pytest.raises(IntegrityError, match="holds no checkpoint"):
        open_anchor(f"git://{repository}").latest()
    assert max(map(int, asked)) < 1_000


def _sparse(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


@pytest.mark.requirement("E-2")
def test_a_rewritten_or_deleted_remote_branch_is_an_integrity_error(repository: Path, folder: Path) -> None:
    anchor = open_anchor(f"git+file://{repository}", cache=folder / "cache")
    publish_all(anchor, [make_note(1), make_note(2)])
    first = git(repository, "rev-parse", "airlock~1")
    git(repository, "update-ref", "refs/heads/airlock", first)
    with pytest.raises(IntegrityError, match="does not continue"):
        anchor.latest()
    git(repository, "update-ref", "-d", "refs/heads/airlock")
    with pytest.raises(IntegrityError, match="does not continue"):
        anchor.publish(make_note(3), after=make_note(2))
    assert git(repository, "for-each-ref") == ""


@pytest.mark.parametrize("start", [None, make_note(1)])
def test_a_push_that_comes_too_late_is_a_conflict(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, start: str | None
) -> None:
    mine = open_anchor(f"git+file://{repository}", cache=folder / "mine")
    theirs = open_anchor(f"git+file://{repository}", cache=folder / "theirs")
    publish_all(mine, [start] if start else [])
    make = git_command.Git.make_commit
    other = make_note(5, root="theirs")

    def overtaken(self: git_command.Git, note: str, parent: str | None, seconds: int) -> str:
        if note != other:
            theirs.publish(other, after=start)
        return make(self, note, parent, seconds)

    monkeypatch.setattr(git_command.Git, "make_commit", overtaken)
    with pytest.raises(ConflictError):
        mine.publish(make_note(2), after=start)
    assert mine.latest() == other


def test_a_local_branch_that_moved_in_between_is_a_conflict(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who does not take our lock: a push into the repository."""
    anchor = open_anchor(f"git://{repository}")
    publish_all(anchor, [make_note(1)])
    make = git_command.Git.make_commit

    def overtaken(self: git_command.Git, note: str, parent: str | None, seconds: int) -> str:
        git(repository, "update-ref", "refs/heads/airlock", make(self, make_note(9), parent, seconds))
        return make(self, note, parent, seconds)

    monkeypatch.setattr(git_command.Git, "make_commit", overtaken)
    with pytest.raises(ConflictError):
        anchor.publish(make_note(2), after=make_note(1))
    assert anchor.history() == [make_note(1), make_note(9)]


def test_a_push_whose_answer_is_lost_counts_when_it_worked(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = open_anchor(f"git+file://{repository}", cache=folder / "cache")
    ask = git_command.Git.ask

    def lost(self: git_command.Git, *arguments: str, data: bytes = b"") -> git_command.Result:
        result = ask(self, *arguments, data=data)
        return git_command.Result(128, b"", "connection reset") if arguments[0] == "push" else result

    monkeypatch.setattr(git_command.Git, "ask", lost)
    anchor.publish(make_note(1), after=None)
    assert anchor.history() == [make_note(1)]


def test_a_push_that_the_server_refuses_says_why(repository: Path, folder: Path) -> None:
    hook = repository / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho this branch is protected >&2\nexit 1\n")
    hook.chmod(0o755)
    anchor = open_anchor(f"git+file://{repository}", cache=folder / "cache")
    with pytest.raises(UnavailableError, match="this branch is protected"):
        anchor.publish(make_note(1), after=None)
    hook.unlink()
    anchor.publish(make_note(1), after=None)
    assert anchor.history() == [make_note(1)]


def fake_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "bin/git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_git_that_hangs_is_ended_with_its_children(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_command, "_SECONDS_ELSE", 0.5)
    fake_git(folder, monkeypatch, f"sleep 600 &\necho $! > {folder}/child\nwait")
    with pytest.raises(UnavailableError, match="took longer"):
        open_anchor(f"git://{repository}").latest()
    child = int((folder / "child").read_text())
    until = time.monotonic() + 300
    while _lives(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_git_is_given_no_secret_and_its_words_are_shown_without_any(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(slack_module.VARIABLE, TOKEN)
    fake_git(folder, monkeypatch, "env >&2\necho fatal: https://eve:hunter2@host/x >&2\nexit 128")
    with pytest.raises(UnavailableError) as caught:
        open_anchor(f"git://{repository}").latest()
    text = messages_of(caught.value)
    assert TOKEN not in text
    assert "hunter2" not in text


def test_a_git_that_is_killed_or_may_not_read_is_no_sign_of_tampering(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("git")
    for number, end in enumerate(["kill -9 $$", "echo fatal: x: Permission denied >&2; exit 128"]):
        (folder / str(number)).mkdir()
        script = f'case "$*" in *for-each-ref*) {end};; esac\nexec {real} "$@"'
        fake_git(folder / str(number), monkeypatch, script)
        with pytest.raises(UnavailableError):
            open_anchor(f"git://{repository}").latest()


def test_without_git_it_says_to_install_it(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UnavailableError) as caught:
        open_anchor(f"git://{repository}").latest()
    assert "install git" in caught.value.fix


def test_a_missing_repository_is_explained_and_not_looked_for_above(repository: Path, folder: Path) -> None:
    inside = repository / "inside"
    inside.mkdir()
    for path in (folder / "gone", inside):
        with pytest.raises(UnavailableError) as caught:
            open_anchor(f"git://{path}").latest()
        assert f"git init --bare '{path}'" in caught.value.fix


# MLflow


@pytest.mark.slow
def test_a_deleted_experiment_is_unavailable_with_what_to_do(
    mlflow: Mlflow, folder: Path, request: pytest.FixtureRequest
) -> None:
    place = mlflow_place(folder, request)
    anchor = place.open()
    anchor.publish(make_note(1), after=None)
    name = place.url.removeprefix("mlflow://")
    mlflow.client.delete_experiment(mlflow.client.get_experiment_by_name(name).experiment_id)
    with pytest.raises(UnavailableError) as caught:
        anchor.publish(make_note(2), after=make_note(1))
    assert "restore the experiment" in caught.value.fix


def test_a_missing_mlflow_store_is_not_made(folder: Path) -> None:
    anchor = open_anchor("mlflow://", tracking_uri=f"sqlite:///{folder}/gone.db")
    with pytest.raises(UnavailableError, match="not there"):
        anchor.publish(make_note(1), after=None)
    assert not (folder / "gone.db").exists()


# Object stores


def parts_of(place: Place) -> tuple[Any, str]:
    parts = urlsplit(place.url)
    return s3_client(parse_qs(parts.query)["endpoint_url"][0]), parts.netloc


@pytest.mark.requirement("E-2")
def test_objects_are_locked_for_the_days_asked_for(folder: Path, request: pytest.FixtureRequest) -> None:
    from botocore.exceptions import ClientError

    place = locked_s3_place(folder, request)
    client, bucket = parts_of(place)
    clock = ManualClock(
        us=4_102_444_800_000_000
    )  # 2100-01-01, so that the store's own clock is before the end
    key = open_anchor(place.url, now=clock).publish(make_note(10), after=None)
    assert key == "9999-99999999999999999989.note"
    found = client.get_object(Bucket=bucket, Key=key)
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert found["ObjectLockRetainUntilDate"].isoformat().startswith("2100-01-31T00:00:00")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key=key, VersionId=found["VersionId"])
    assert place.open().latest() == make_note(10)


@pytest.mark.requirement("E-2")
def test_a_delete_marker_before_a_locked_object_is_seen(folder: Path, request: pytest.FixtureRequest) -> None:
    place = locked_s3_place(folder, request)
    client, bucket = parts_of(place)
    publish_all(place.open(), [make_note(1), make_note(2)])
    client.delete_object(Bucket=bucket, Key="9999-99999999999999999997.note")
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 1, "hidden from whoever only lists objects"
    for act in (place.open().latest, place.open().history):
        with pytest.raises(IntegrityError, match="somebody deleted"):
            act()


def test_retention_in_a_bucket_without_locks_is_refused_with_what_to_do(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    place = s3_place(folder, request)
    anchor = open_anchor(f"{place.url}&retention_days=1")
    with pytest.raises(UnavailableError) as caught:
        anchor.publish(make_note(1), after=None)
    assert "object lock" in caught.value.fix
    assert anchor.history() == []


@pytest.mark.parametrize("name", ["s3", "s3-locked"])
def test_a_long_history_comes_in_pages(
    name: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "_PAGE", 3)
    place = PLACES[name](folder, request)
    notes = [make_note(size) for size in range(1, 12)]
    publish_all(place.open(), notes)
    assert place.open().history() == notes


@pytest.mark.parametrize("key", ["log/0000.txt", "log/9999-99999999999999999999.note.bak", "log/notes/1"])
def test_another_object_among_the_checkpoints_is_an_integrity_error(
    folder: Path, request: pytest.FixtureRequest, key: str
) -> None:
    place = s3_place(folder, request)
    client, bucket = parts_of(place)
    client.put_object(Bucket=bucket, Key=key, Body=b"x")
    client.put_object(Bucket=bucket, Key="logs/beside.txt", Body=b"x")
    with pytest.raises(IntegrityError, match="another object"):
        place.open().history()


def test_an_object_under_the_key_of_another_size_is_an_integrity_error(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    place = s3_place(folder, request)
    client, bucket = parts_of(place)
    client.put_object(Bucket=bucket, Key="log/9999-99999999999999999989.note", Body=make_note(3).encode())
    with pytest.raises(IntegrityError, match="another size"):
        place.open().latest()


def test_an_object_that_stands_there_already_is_ours_or_a_conflict(
    folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Created between the look and the write: by another publisher, or by a write whose answer was lost."""
    place = s3_place(folder, request)
    place.open().publish(make_note(1), after=None)
    late = place.open()
    monkeypatch.setattr(late, "_newest", lambda: None)
    assert late.publish(make_note(1), after=None) == "log/9999-99999999999999999998.note"
    with pytest.raises(ConflictError):
        late.publish(make_note(1, root="another"), after=None)
    assert place.open().history() == [make_note(1)]


def test_a_store_without_credentials_or_at_no_address_is_unavailable(
    s3: str, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError):
        open_anchor("s3://bucket/log?endpoint_url=http://127.0.0.1:1&region=us-east-1").latest()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UnavailableError) as caught:
        open_anchor(f"s3://bucket/log?endpoint_url={s3}&region=us-east-1").latest()
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix


# Slack


@pytest.fixture
def channel(slack: FakeSlack) -> Anchor:
    return open_anchor(f"slack://C0123456789?base_url={slack.url}")


def test_people_read_a_sentence_and_the_note(slack: FakeSlack, channel: Anchor) -> None:
    note = make_note(1_234_567, origin="log.example/<!channel>&co")
    receipt = channel.publish(note, after=None)
    (message,) = slack.messages
    assert receipt == f"message {message['ts']} in C0123456789"
    assert message["text"] == "Audit log of log.example/&lt;!channel&gt;&amp;co: 1,234,567 entries"
    (block,) = message["blocks"]
    sentence, code = block["elements"]
    expected = "Audit log of log.example/<!channel>&co: 1,234,567 entries"
    assert sentence["elements"] == [{"type": "text", "text": expected}]
    assert code == {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": note}]}
    payload = message["metadata"]["event_payload"]
    assert message["metadata"]["event_type"] == "airlock_checkpoint"
    assert (payload["size"], payload["note"]) == (1_234_567, note)


def test_messages_of_others_are_passed_over_on_every_page(slack: FakeSlack, channel: Anchor) -> None:
    forged = {
        "event_type": "airlock_checkpoint",
        "event_payload": {"size": 9, "note": make_note(9), "after": ""},
    }
    notes = []
    for size in (1, 2, 3):
        for _ in range(5):
            slack.post("UEVE", text="hello", metadata=forged)
            slack.post("UBOT", text="an approval")
            slack.post("UBOT", text="an alert", metadata={"event_type": "other", "event_payload": {}})
        publish_all(channel, [make_note(size)])
        notes.append(make_note(size))
    slack.post("UEVE", text="hello", metadata=forged)
    assert channel.latest() == notes[-1]
    assert channel.history() == notes


def test_an_edited_message_and_a_deleted_one_are_integrity_errors(slack: FakeSlack, channel: Anchor) -> None:
    publish_all(channel, [make_note(1), make_note(2), make_note(3)])
    removed = slack.messages.pop(1)
    for act in (channel.latest, channel.history):
        with pytest.raises(IntegrityError, match="deleted"):
            act()
    slack.messages.insert(1, {**removed, "edited": {"user": "UBOT", "ts": "1"}})
    with pytest.raises(IntegrityError, match="edited"):
        channel.history()


@pytest.mark.parametrize(
    "payload", [None, {}, {"note": 1}, {"note": make_note(1)}, {"note": make_note(1), "after": None}]
)
def test_metadata_of_another_form_is_an_integrity_error(
    slack: FakeSlack, channel: Anchor, payload: dict[str, Any] | None
) -> None:
    slack.post("UBOT", text="x", metadata={"event_type": "airlock_checkpoint", "event_payload": payload})
    with pytest.raises(IntegrityError):
        channel.latest()


def test_of_two_messages_after_the_same_one_the_earlier_counts(slack: FakeSlack, channel: Anchor) -> None:
    publish_all(channel, [make_note(1)])
    other = open_anchor(f"slack://C0123456789?base_url={slack.url}")

    def overtake() -> None:
        slack.before_post = lambda: None
        publish_all(other, [make_note(2, root="theirs"), make_note(3, root="theirs")])

    slack.before_post = overtake
    with pytest.raises(ConflictError):
        channel.publish(make_note(4), after=make_note(1))
    assert len(slack.messages) == 4
    expected = [make_note(1), make_note(2, root="theirs"), make_note(3, root="theirs")]
    assert channel.latest() == expected[-1]
    assert channel.history() == expected
    publish_all(channel, [make_note(5)])
    assert channel.history() == [*expected, make_note(5)]


def test_a_channel_whose_oldest_messages_expired_still_counts(slack: FakeSlack, channel: Anchor) -> None:
    publish_all(channel, [make_note(size) for size in range(1, 6)])
    del slack.messages[:3]
    assert channel.history() == [make_note(4), make_note(5)]
    del slack.messages[:1]
    assert channel.latest() == make_note(5)
    publish_all(channel, [make_note(6)])
    assert channel.history() == [make_note(5), make_note(6)]


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        ({"ok": False, "error": "invalid_auth"}, "AIRLOCK_SLACK_TOKEN"),
        ({"ok": False, "error": "not_in_channel"}, "invite the bot"),
        ({"ok": False, "error": "missing_scope", "needed": "channels:history"}, "channels:history"),
        ({"ok": False, "error": "ratelimited"}, "every=3600"),
        ({"ok": False, "error": f"leak {TOKEN}"}, "look that word up"),
        ({"ok": True}, "Slack is up"),
        ({"ok": True, "messages": [1], "user_id": "UBOT"}, "Slack is up"),
    ],
)
def test_what_slack_refuses_is_unavailable_with_what_to_do(
    slack: FakeSlack, channel: Anchor, answer: dict[str, Any], fix: str
) -> None:
    slack.error = answer
    for act in (channel.latest, channel.history, lambda: channel.publish(make_note(1), after=None)):
        with pytest.raises(UnavailableError) as caught:
            act()
        assert fix in caught.value.fix
        assert TOKEN not in messages_of(caught.value)
    assert slack.messages == []


def test_a_message_is_never_sent_twice(slack: FakeSlack, channel: Anchor) -> None:
    channel.publish(make_note(1), after=None)
    channel.publish(make_note(1), after=None)
    assert slack.calls.count("chat.postMessage") == 1


# URLs


def test_each_kind_has_its_own_rhythm_and_a_name_without_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(slack_module.VARIABLE, TOKEN)
    urls = {
        "file:///mnt/other%20disk": ("file:///mnt/other disk", 0),
        "git:///srv/audit.git": ("git:///srv/audit.git?branch=airlock", 60),
        "git+ssh://git@host:22/audit.git?branch=a/b": ("git+ssh://git@host:22/audit.git?branch=a/b", 60),
        "git+https://host/audit.git": ("git+https://host/audit.git?branch=airlock", 60),
        "mlflow://": ("mlflow://airlock-audit", 60),
        "mlflow://%2Fteam%2Faudit%20log": ("mlflow:///team/audit log", 60),
        "s3://bucket/a/b/?region=eu-central-1": ("s3://bucket/a/b/", 60),
        "slack://C0123456789": ("slack://C0123456789", 3600),
    }
    for url, expected in urls.items():
        anchor = open_anchor(url, cache=folder, tracking_uri="http://127.0.0.1:1")
        assert (anchor.name, anchor.every_seconds) == expected
        other = open_anchor(
            f"{url}{'&' if '?' in url else '?'}every=7", cache=folder, tracking_uri="http://127.0.0.1:1"
        )
        assert (other.name, other.every_seconds) == (expected[0], 7)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "/mnt/hunter2",
        "http://host/hunter2",
        "file:relative",
        "file://relative/path",
        "file:///",
        "file:///a#b",
        "file:///a%00b",
        "file:///a?hunter2=1",
        "file:///a?every",
        "file:///a?every=",
        "file:///a?every=-1",
        "file:///a?every=1.5",
        "file:///a?every=hunter2",
        "file:///a?every=1&every=2",
        "git://host/path",
        "git:///a?branch=-f",
        "git:///a?branch=a..b",
        "git:///a?branch=a.lock",
        "git:///a?branch=a//b",
        "git:///a?branch=a b",
        "git:///a?token=hunter2",
        "git+https://eve:hunter2@host/a.git",
        "git+https://hunter2@host/a.git",
        "git+https://hunter2%40host/a.git",
        "git+ssh://git:hunter2@host/a.git",
        "git+ssh://-oProxyCommand=x/a.git",
        "git+ssh://git@host/",
        "git+ssh:///a.git",
        "git+file://host/a.git",
        "mlflow://a/b",
        "mlflow://eve:hunter2@host",
        "s3://",
        "s3://key:hunter2@bucket",
        "s3://bucket?endpoint_url=http://key:hunter2@host",
        "s3://bucket?endpoint_url=host",
        "s3://bucket?endpoint_url=file:///etc",
        "s3://bucket?retention_days=0",
        "s3://bucket?retention_days=99999999",
        "s3://bucket?aws_secret_access_key=hunter2",
        "slack://general",
        "slack://xoxb-hunter2",
        "slack://C0123456789?token=hunter2",
        "slack://C0123456789?base_url=http://slack.example/api/",
        "slack://C0123456789/../x",
        "s3://[::1",
        "s3://bucket:99999999",
    ],
)
def test_a_url_that_cannot_be_used_is_a_configuration_error_without_its_secrets(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(slack_module.VARIABLE, TOKEN)
    with pytest.raises(ConfigurationError) as caught:
        open_anchor(url, cache=folder, tracking_uri="http://127.0.0.1:1")
    assert caught.value.fix
    # The name of an unknown parameter is shown, which is where that one stands.
    assert "hunter2" not in messages_of(caught.value).replace("unknown parameter 'hunter2'", "")


@given(st.text())
def test_any_text_is_an_anchor_or_a_configuration_error(text: str) -> None:
    for url in (text, f"file:///{text}", f"s3://{text}", f"git+ssh://{text}"):
        with suppress(ConfigurationError):
            assert open_anchor(url, cache=Path("/nowhere")).name


def test_what_an_anchor_needs_from_the_deployment_is_asked_for(folder: Path) -> None:
    for url, name in {
        "git+ssh://git@host/a.git": "AIRLOCK_HOME",
        "mlflow://": "AIRLOCK_MLFLOW_URI",
        "slack://C0123456789": "AIRLOCK_SLACK_TOKEN",
    }.items():
        with pytest.raises(ConfigurationError) as caught:
            open_anchor(url)
        assert name in str(caught.value)


def test_a_list_of_anchors_is_separated_by_white_space_or_commas_and_names_no_place_twice() -> None:
    found = open_anchors("file:///a, git:///b.git\n  file:///c?every=5,")
    assert [anchor.name for anchor in found] == ["file:///a", "git:///b.git?branch=airlock", "file:///c"]
    assert open_anchors(" \n") == []
    with pytest.raises(ConfigurationError, match="twice"):
        open_anchors("file:///a file:///a?every=5")
