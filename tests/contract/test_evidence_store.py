"""What the evidence store promises: the name is the content, and it is there whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airlock.adapters.evidence import FileEvidenceStore
from airlock.core.canonical import sha256_hex
from airlock.core.errors import IntegrityError, NotFoundError, UnavailableError

FORK = multiprocessing.get_context("fork")
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def store(root: Path) -> FileEvidenceStore:
    return FileEvidenceStore(root)


def place(root: Path, digest: str) -> Path:
    return root / digest[:2] / digest[2:]


def tamper(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()]


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, or the error it raises, in a process of its own; its exit code if it died."""
    here, there = FORK.Pipe(duplex=False)

    def run() -> None:
        try:
            there.send(work())
        except Exception as error:  # noqa: BLE001  # the parent judges what it was
            there.send(error)

    child = FORK.Process(target=run)
    child.start()
    there.close()
    try:
        result = here.recv()
    except EOFError:
        result = None
    child.join(20)
    return child.exitcode if result is None else result


# Content is the name


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_content_comes_back_under_its_own_digest(store: FileEvidenceStore, content: bytes) -> None:
    digest = store.put(content)
    assert digest == sha256_hex(content)
    assert store.get(digest) == content
    assert store.path(digest).read_bytes() == content


def test_storing_twice_is_one_file_that_is_not_written_again(store: FileEvidenceStore, root: Path) -> None:
    digest = store.put(b"once")
    before = place(root, digest).stat()
    assert store.put(b"once") == digest
    after = place(root, digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(files(root)) == 1


def test_a_file_is_stored_by_content_not_by_name(store: FileEvidenceStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    assert store.put_file(tmp_path / "a") == store.put_file(tmp_path / "b") == sha256_hex(b"same")


def test_stored_files_are_read_only(store: FileEvidenceStore, root: Path) -> None:
    assert place(root, store.put(b"x")).stat().st_mode & 0o777 == 0o444


def test_many_threads_storing_the_same_content_leave_one_whole_file(
    store: FileEvidenceStore, root: Path
) -> None:
    content = os.urandom(200_000)
    barrier = threading.Barrier(8)

    def put(_: int) -> str:
        barrier.wait()
        return store.put(content)

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(put, range(8)))
    assert digests == {sha256_hex(content)}
    assert [path.read_bytes() for path in files(root)] == [content]


def test_what_was_never_stored_is_not_found(store: FileEvidenceStore) -> None:
    with pytest.raises(NotFoundError, match="no evidence"):
        store.get("0" * 64)


@pytest.mark.parametrize(
    "digest",
    [
        "../../etc/passwd",
        "ab/../../../etc/passwd",
        "/etc/passwd",
        "",
        "a" * 63,
        "a" * 65,
        "A" * 64,
        "a" * 64 + "\n",
        "a" * 62 + "/.",
        "٣" * 64,
        "\0" * 64,
    ],
)
def test_what_is_no_digest_names_no_file(store: FileEvidenceStore, digest: str) -> None:
    for look in (store.get, store.path):
        with pytest.raises(NotFoundError, match="not a SHA-256 digest"):
            look(digest)


# Tampering


@pytest.mark.requirement("A-7")
@pytest.mark.parametrize("content", [b"", b"verdict: PASSED", b"verdict: FAILED\n", b"verdict: FAILE"])
def test_changed_content_is_an_integrity_error_that_names_the_file(
    store: FileEvidenceStore, root: Path, content: bytes
) -> None:
    digest = store.put(b"verdict: FAILED")
    tamper(place(root, digest), content)
    for look in (store.get, store.path):
        with pytest.raises(IntegrityError, match="was changed on disk") as caught:
            look(digest)
        assert caught.value.where == str(place(root, digest))


def test_two_files_exchanged_are_both_noticed(store: FileEvidenceStore, root: Path) -> None:
    first, second = store.put(b"first"), store.put(b"second")
    place(root, first).rename(root / "aside")
    place(root, second).rename(place(root, first))
    (root / "aside").rename(place(root, second))
    for digest in (first, second):
        with pytest.raises(IntegrityError):
            store.get(digest)


def test_a_link_to_other_content_is_noticed(store: FileEvidenceStore, root: Path, tmp_path: Path) -> None:
    digest = store.put(b"mine")
    (tmp_path / "theirs").write_bytes(b"theirs")
    place(root, digest).unlink()
    place(root, digest).symlink_to(tmp_path / "theirs")
    with pytest.raises(IntegrityError):
        store.get(digest)


def test_bytes_exchanged_while_they_are_read_are_never_returned(store: FileEvidenceStore, root: Path) -> None:
    """Verifying a file and then reading it again would return what was never verified."""
    good, bad = b"g" * 4_000, b"b" * 4_000
    digest = store.put(good)
    path, other = place(root, digest), root / "other"
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for content in (bad, good):
                other.write_bytes(content)
                other.replace(path)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    try:
        for _ in range(400):
            try:
                assert store.get(digest) == good
            except IntegrityError:
                continue
    finally:
        stop.set()
        attacker.join()


# Crashes and full disks


STEPS = ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_before_the_end_leaves_nothing_visible_and_the_next_try_succeeds(
    store: FileEvidenceStore, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    content = os.urandom(100_000)

    def work() -> None:
        monkeypatch.setattr(step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        store.put(content)

    assert in_child(work) == -signal.SIGKILL
    with pytest.raises(NotFoundError):
        store.get(sha256_hex(content))
    assert store.get(store.put(content)) == content


def test_file_and_folder_reach_the_disk_before_the_digest_is_returned(
    store: FileEvidenceStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    path = place(root, store.put(b"durable"))
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino, root.stat().st_ino]


def test_a_full_disk_is_unavailable_and_leaves_nothing(store: FileEvidenceStore, root: Path) -> None:
    def work() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        kept = store.put(b"small")
        with pytest.raises(UnavailableError, match="cannot write") as caught:
            store.put(b"x" * 5_000)
        assert caught.value.fix
        return kept

    kept = in_child(work)
    assert kept == sha256_hex(b"small")
    assert files(root) == [place(root, kept)]


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("a file where the folder should be")
    with pytest.raises(UnavailableError, match="cannot write"):
        FileEvidenceStore(tmp_path / "evidence").put(b"x")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder every user can reach; pytest's own folders are for one user."""
    with tempfile.TemporaryDirectory(prefix="airlock-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for path in Path(name).rglob("*"):
            if path.is_dir():
                path.chmod(0o755)


def as_ordinary_user(work: Callable[[], Any]) -> Any:
    """Root is refused nothing, so it becomes nobody first."""

    def run() -> Any:
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        return work()

    return in_child(run)


def test_a_read_only_folder_can_be_read_and_says_why_it_cannot_be_written(open_folder: Path) -> None:
    store = FileEvidenceStore(open_folder / "evidence")
    digest = store.put(b"old")
    for folder in (open_folder / "evidence" / digest[:2], open_folder / "evidence"):
        folder.chmod(0o555)
    assert as_ordinary_user(lambda: store.get(digest)) == b"old"
    assert as_ordinary_user(lambda: store.put(b"old")) == digest
    error = as_ordinary_user(lambda: store.put(b"new"))
    assert isinstance(error, UnavailableError)
    assert "permission" in error.fix


def test_a_folder_that_cannot_be_entered_is_unavailable_not_a_crash(open_folder: Path) -> None:
    store = FileEvidenceStore(open_folder / "evidence")
    digest = store.put(b"old")
    (open_folder / "evidence").chmod(0o000)
    for work in (
        lambda: store.get(digest),
        lambda: store.path(digest),
        lambda: store.put(b"old"),
        lambda: store.put(b"new"),
    ):
        error = as_ordinary_user(work)
        assert isinstance(error, UnavailableError), error
        assert "permission" in error.fix
