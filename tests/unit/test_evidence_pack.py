"""The evidence pack: what is in it, that strangers verify it alone, and that no tampering survives that."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cryptography
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock import proof
from airlock.adapters.audit.keys import (
    SigningKey,
    next_path,
    public_path,
    read_public_key,
    rotation_statement,
)
from airlock.cli import main
from airlock.core.audit import Kind
from airlock.core.canonical import canonical_json, parse_json, sha256_hex
from airlock.core.errors import IntegrityError, NotFoundError, UnavailableError
from airlock.core.evidence import Finding, GateResult, Metric, Verdict
from airlock.core.merkle import Tree
from airlock.proof import Checkpoint, InclusionProof, PublicKey, hash_leaf, verify_pack
from airlock.reporting.regulations import REGIMES
from airlock.services.announce import announce, seal
from airlock.services.delegations import give
from airlock.services.deployment import anchors_of
from airlock.services.evaluate import keep_evidence
from airlock.services.evidence_pack import export_pack
from airlock.services.keys import rotate_key
from airlock.services.privacy import erase
from airlock.services.promote import promote
from airlock.services.releases import open_case
from airlock.services.sequence import Sequencer
from tests.support.deployments import Killed, World, edit, fast_folder, make_world

COMMENT = "The gap between the groups is larger than before: collect more rows of group B."
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
Files = dict[str, bytes]


def settle(world: World) -> None:
    """Let the sequencer put everything that waits into the log."""
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    while sequencer.step() is not None:
        pass


def close(world: World, release_id: str) -> str:
    announce(world.deployment, release_id)
    seal(world.deployment, release_id)
    return release_id


def promoted(world: World) -> str:
    release_id = world.frozen("2", context="Why this release.")
    case = open_case(world.deployment, release_id)
    metric = Metric(name="roc_auc", value=0.81, threshold=0.6, direction="higher", interval=(0.7, 0.9), n=400)
    result = GateResult(
        verdict=Verdict.WARNED,
        summary="ROC AUC is 0.81.",
        findings=[Finding(id="wide", verdict=Verdict.WARNED, message="The interval is wide.", fix="mend")],
        metrics=[metric],
        files={
            "plot.svg": world.deployment.evidence.put(SVG),
            "table.json": world.deployment.evidence.put(b'{"a":1}'),
        },
        details={"change": {"relative": 0.3, "direction": "better"}},
    )
    keep_evidence(world.deployment, case, "performance", config={"floor": 0.6}, result=result, seconds=0.5)
    world.evidence(release_id, verdicts={"performance": None})
    world.decision(release_id)
    world.answer(release_id, "grace", 0, comment=COMMENT)
    world.answer(release_id, "ravi", 1, comment="")
    promote(world.deployment, release_id)
    return close(world, release_id)


def denied(world: World) -> str:
    return close(world, world.judged(verdicts={"performance": Verdict.FAILED, "score": None}))


def rejected(world: World) -> str:
    release_id = world.judged()
    world.answer(release_id, "grace", 0, choice="reject", comment=COMMENT)
    return close(world, release_id)


def erased(world: World) -> str:
    release_id = rejected(world)
    erase(world.deployment, "grace", actor="petra", reason="Request DSR-17")
    return release_id


def waiting(world: World) -> str:
    release_id = world.judged()
    world.answer(release_id, "grace", 0)
    return release_id


def deputed(world: World) -> str:
    """Somebody answers for somebody else, on a condition."""
    edit(
        world.policy_file, "expires_hours: 72", "expires_hours: 999\n  delegate_days: 9\n  condition_days: 9"
    )
    release_id = world.judged()
    give(
        world.deployment, delegation_id="delegation-1", giver="ravi", to="petra", roles=["risk-officer"],
        start="2026-01-01", until="2026-01-05", reason="On holiday today.", when="now",
    )  # fmt: skip
    world.answer(release_id, "petra", 1, condition="Show a month of shadow traffic.", until="2026-01-03")
    return release_id


def submitted(world: World) -> str:
    return world.submit(context="")


STORIES: dict[str, Callable[[World], str]] = {
    story.__name__: story for story in (promoted, denied, rejected, erased, waiting, deputed, submitted)
}
STATES = {
    "promoted": "promoted",
    "denied": "denied",
    "rejected": "rejected",
    "erased": "rejected",
    "waiting": "waiting for approval",
    "deputed": "waiting for approval",
    "submitted": "checking",
}


@dataclass
class Exported:
    """A pack that was exported, and the world it is from."""

    world: World
    release_id: str
    path: Path
    key: PublicKey

    @property
    def files(self) -> Files:
        return unpack(self.path)


@pytest.fixture(scope="module")
def packs() -> Iterator[Mapping[str, Exported]]:
    """One pack of each story, exported once."""
    with fast_folder() as folder:
        found = {}
        for name, story in STORIES.items():
            world = make_world(folder / name)
            release_id = story(world)
            settle(world)
            path = export_pack(world.deployment, release_id, folder / f"{name}.zip")
            key = read_public_key(public_path(world.deployment.settings.signing_key))
            found[name] = Exported(world, release_id, path, key)
        yield found


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


def unpack(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def pack(files: Mapping[str, bytes], target: Path) -> Path:
    """An archive in Airlock's form, as somebody who knows it would forge one."""
    listed = [(name, zlib.crc32(data), len(data)) for name, data in sorted(files.items())]
    parts = [proof.zip_header(name, crc, size) + files[name] for name, crc, size in listed]
    target.write_bytes(b"".join(parts) + proof.zip_directory(listed))
    return target


def relisted(files: Mapping[str, bytes]) -> Files:
    """The files with a ``pack.json`` whose digests were made to fit, as a careful forger would."""
    index = parse_json(files["pack.json"])
    roles = {line["path"]: line["role"] for line in index["files"]}
    index["files"] = [
        {"path": name, "role": roles.get(name, "evidence"), "sha256": sha256_hex(data), "size": len(data)}
        for name, data in sorted(files.items())
        if name != "pack.json"
    ]
    return {**files, "pack.json": canonical_json(index)}


def without(files: Mapping[str, bytes], name: str) -> Files:
    return {path: data for path, data in files.items() if path != name}


def refused(path: Path, key: PublicKey | None = None) -> str:
    report = verify_pack(path, key)
    assert not report.verified
    assert report.verdict.startswith("NOT VERIFIED")
    assert report.looks_like
    assert not report.facts
    return report.verdict


# --- what is in a pack ---------------------------------------------------------------------------------


@pytest.mark.requirement("E-2", "E-3")
@pytest.mark.parametrize("story", STORIES)
def test_every_story_becomes_a_pack_that_verifies_with_the_key_of_the_log(
    packs: Mapping[str, Exported], story: str
) -> None:
    found = packs[story]
    report = verify_pack(found.path, found.key)
    assert report.verified, report.verdict
    assert report.pinned
    assert found.key.id in report.verdict
    facts = dict(report.facts)
    assert facts["release"] == found.release_id
    assert facts["state"] == STATES[story]


@pytest.mark.requirement("A-6", "A-7", "E-3")
def test_for_whom_and_on_which_condition_somebody_answered_is_in_the_report(
    packs: Mapping[str, Exported],
) -> None:
    facts = dict(verify_pack(packs["deputed"].path, packs["deputed"].key).facts)
    assert (facts["answer.user"], facts["answer.for"]) == ("petra", "ravi")
    assert facts["answer.condition"] == "Show a month of shadow traffic."
    page = packs["deputed"].files["index.html"].decode()
    assert "On condition: " in page


@pytest.mark.requirement("E-3")
def test_the_index_says_of_every_file_what_it_is_and_what_is_not_there(
    packs: Mapping[str, Exported],
) -> None:
    files = packs["promoted"].files
    index = parse_json(files["pack.json"])
    assert {line["path"] for line in index["files"]} == {*files} - {"pack.json"}
    assert all(line["role"] for line in index["files"])
    assert sum("gate performance" in line["role"] for line in index["files"]) == 3
    manifest = parse_json(files["manifest.json"])
    known = {line["sha256"] for line in index["not_included"]}
    for role in ("candidate", "champion"):
        assert {file["sha256"] for file in manifest[role]["files"]} <= known
    assert {manifest["training"]["sha256"], manifest["evaluation"]["sha256"]} <= known
    assert known.isdisjoint(line["sha256"] for line in index["files"])


@pytest.mark.requirement("E-3")
def test_documents_are_the_bytes_that_were_stored(packs: Mapping[str, Exported]) -> None:
    found = packs["promoted"]
    files, evidence = found.files, found.world.deployment.evidence
    release = found.world.release(found.release_id)
    frozen, decided = release.first(Kind.RELEASE_FROZEN), release.first(Kind.RELEASE_DECIDED)
    assert frozen is not None
    assert decided is not None
    assert files["manifest.json"] == evidence.get(frozen.data["manifest"])
    assert files["decision.json"] == evidence.get(decided.data["decision"])
    assert parse_json(files["decision.json"])["reasons"]
    assert files["documentation.md"].startswith(b"#")
    assert files[f"evidence/{sha256_hex(SVG)}"] == SVG
    assert files["verify.py"] == Path(proof.__file__).read_bytes()
    assert len(files["README.txt"].splitlines()) == 15


def test_the_same_log_gives_the_same_bytes(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    for found in packs.values():
        again = export_pack(found.world.deployment, found.release_id, tmp_path / "again.zip")
        assert again.read_bytes() == found.path.read_bytes()


def test_only_the_owner_may_read_a_pack(packs: Mapping[str, Exported]) -> None:
    assert stat.S_IMODE(packs["promoted"].path.stat().st_mode) == 0o600


def test_texts_are_in_the_pack_and_erased_ones_are_not(packs: Mapping[str, Exported]) -> None:
    texts = parse_json(packs["rejected"].files["personal.json"])["texts"]
    assert {line["field"]: line["text"] for line in texts} == {"context": "A test.", "comment": COMMENT}
    files = packs["erased"].files
    assert not any(COMMENT.encode() in data for data in files.values())
    texts = parse_json(files["personal.json"])["texts"]
    assert [line.get("erased", False) for line in texts] == [False, True]
    assert parse_json(files["erasures/0001.json"])["kind"] == "personal.erased"


def test_a_text_whose_erasure_is_recorded_stays_away_though_it_is_still_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_id = rejected(world)
    monkeypatch.setattr("airlock.adapters.audit.store.SqlAuditStore.erase", lambda *_: None)
    erase(world.deployment, "grace", actor="petra", reason="Request DSR-17")
    settle(world)
    files = unpack(export_pack(world.deployment, release_id, tmp_path / "pack.zip"))
    assert not any(COMMENT.encode() in data for data in files.values())


# --- what is refused when it is written ----------------------------------------------------------------


def test_events_that_wait_are_counted_and_nothing_is_written(world: World, tmp_path: Path) -> None:
    release_id = world.judged()
    # Five came after the policy was published, which waits until the log has everything before it.
    with pytest.raises(UnavailableError, match="5 wait for the sequencer, 0 in the spool") as found:
        export_pack(world.deployment, release_id, tmp_path / "pack.zip")
    assert "airlock sequencer" in found.value.fix
    assert not [*tmp_path.iterdir()]


def test_events_in_the_spool_are_counted_too(world: World, tmp_path: Path) -> None:
    release_id = world.judged()
    settle(world)
    late = world.release(release_id).events[-1].model_copy(update={"key": "later", "kind": Kind.TASK_OUTCOME})
    world.deployment.spool.keep(late)
    with pytest.raises(UnavailableError, match="1 in the spool"):
        export_pack(world.deployment, release_id, tmp_path / "pack.zip")


def test_an_unknown_release_has_no_pack(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no release"):
        export_pack(world.deployment, "nobody-v1-00000000", tmp_path / "pack.zip")


@pytest.mark.requirement("E-3")
def test_all_evidence_that_is_missing_or_damaged_is_named(world: World, tmp_path: Path) -> None:
    release_id = promoted(world)
    settle(world)
    digests = {line.gate: line.digest for line in world.release(release_id).gates}
    world.evidence_file(digests["documentation"]).unlink()
    world.evidence_file(digests["score"]).write_bytes(b"{}")
    world.evidence_file(sha256_hex(SVG)).unlink()
    with pytest.raises(IntegrityError, match="3 pieces of evidence") as found:
        export_pack(world.deployment, release_id, tmp_path / "pack.zip")
    for name in (digests["documentation"], digests["score"], "plot.svg of gate performance"):
        assert name in found.value.what
    assert not [*tmp_path.iterdir()]


def test_a_text_that_is_gone_without_a_record_is_an_incident(world: World, tmp_path: Path) -> None:
    release_id = rejected(world)
    settle(world)
    texts = world.deployment.audit.texts(release_id=release_id)  # type: ignore[attr-defined]
    world.deployment.audit.erase([text.commitment for text in texts])  # type: ignore[attr-defined]
    with pytest.raises(IntegrityError, match="no event records that it was erased"):
        export_pack(world.deployment, release_id, tmp_path / "pack.zip")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Killed()])
def test_a_full_disk_or_a_kill_leaves_the_earlier_pack_alone(
    packs: Mapping[str, Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "pack.zip"
    target.write_bytes(b"earlier")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr("airlock.services.evidence_pack.os.fsync", fail)
    with pytest.raises(UnavailableError if isinstance(error, OSError) else Killed):
        export_pack(packs["promoted"].world.deployment, packs["promoted"].release_id, target)
    assert target.read_bytes() == b"earlier"
    assert [*tmp_path.iterdir()] == [target]


def test_a_log_that_was_changed_makes_no_pack(world: World, tmp_path: Path) -> None:
    release_id = rejected(world)
    settle(world)
    log = world.deployment.log
    assert b"dana" in log.entry(0).body
    with log.database.engine.begin() as connection:
        triggers = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        connection.exec_driver_sql("UPDATE event SET actor = 'mara' WHERE ingest_id = 1")
    with pytest.raises(IntegrityError, match="does not verify"):
        export_pack(world.deployment, release_id, tmp_path / "pack.zip")
    assert not [*tmp_path.iterdir()]


# --- a stranger verifies it ----------------------------------------------------------------------------

_ALONE = """
import sys
library, tool, results, *calls = sys.argv[1:]
sys.path.insert(0, library)

def refuse(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system"):
        raise RuntimeError("the verifier reaches for " + event)

sys.addaudithook(refuse)
import importlib.util, json
assert importlib.util.find_spec("airlock") is None
specification = importlib.util.spec_from_file_location("verify", tool)
verify = importlib.util.module_from_spec(specification)
sys.modules["verify"] = verify
specification.loader.exec_module(verify)
codes = []
for call in calls:
    try:
        codes.append(verify.main(json.loads(call)))
    except SystemExit as end:
        codes.append(end.code)
loaded = {name.partition(".")[0] for name in sys.modules}
json.dump({"codes": codes, "loaded": sorted(loaded)}, open(results, "w"))
"""


@dataclass
class Stranger:
    """A machine of somebody else: Python, ``cryptography`` and verify.py, but no network and no Airlock."""

    folder: Path

    def __post_init__(self) -> None:
        library = self.folder / "library"
        library.mkdir(parents=True)
        site = Path(cryptography.__file__).parents[1]
        for found in [*site.glob("cryptography"), *site.glob("*cffi*")]:
            (library / found.name).symlink_to(found)
        shutil.copy(proof.__file__, self.folder / "verify.py")

    def verify(self, *calls: list[str], tool: Path | None = None) -> tuple[list[int], str]:
        """Exit code of each call, and everything that was printed."""
        results = self.folder / "results.json"
        command = [sys.executable, "-I", "-S", "-B", "-c", _ALONE, str(self.folder / "library")]
        command += [str(tool or self.folder / "verify.py"), str(results), *map(json.dumps, calls)]
        if os.geteuid() == 0 and shutil.which("unshare"):
            isolated = ["unshare", "--net", *command]
            if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0:  # noqa: S607
                command = isolated
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(results.read_text())
        assert "airlock" not in found["loaded"]
        return found["codes"], done.stdout


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    with fast_folder() as folder:
        yield Stranger(folder / "stranger")


@pytest.mark.requirement("E-2", "E-3")
def test_a_stranger_verifies_every_pack_without_airlock_and_without_a_network(
    packs: Mapping[str, Exported], stranger: Stranger, tmp_path: Path
) -> None:
    for name, found in packs.items():
        pinned = tmp_path / f"{name}.pub"
        pinned.write_text(f"{found.key}\n")
        folder = tmp_path / name
        shutil.unpack_archive(found.path, folder)
        calls = [
            [str(found.path), "--public-key", str(pinned)],
            [str(found.path)],
            [str(folder), "--public-key", str(pinned)],
            [str(found.path), "--format", "json"],
        ]
        codes, printed = stranger.verify(*calls)
        assert codes == [0, 0, 0, 0], printed
        assert f"VERDICT: VERIFIED with the key {found.key.id}" in printed
        assert f"NOT PINNED: signed by key {found.key.id}" in printed
        # Beside the unpacked files, without an argument.
        codes, printed = stranger.verify([], tool=folder / "verify.py")
        assert codes == [0], printed
        assert "this verifier came with the pack" in printed


@pytest.mark.requirement("E-2")
def test_a_stranger_and_airlock_give_the_same_verdict_on_forgeries(
    packs: Mapping[str, Exported], stranger: Stranger, tmp_path: Path
) -> None:
    files = packs["promoted"].files
    forged = []
    for number, name in enumerate(sorted(files)):
        data = files[name]
        forged += [
            pack({**files, name: data[:-2] + b"x\n"}, tmp_path / f"{number}-edited.zip"),
            pack({**files, name: b""}, tmp_path / f"{number}-emptied.zip"),
            pack(without(files, name), tmp_path / f"{number}-gone.zip"),
        ]
    codes, _ = stranger.verify(*([str(path)] for path in forged))
    assert codes == [3] * len(forged)
    assert not any(verify_pack(path).verified for path in forged)


def test_a_wrong_call_exits_with_2(packs: Mapping[str, Exported], stranger: Stranger, tmp_path: Path) -> None:
    found = packs["promoted"]
    own, nonsense = tmp_path / "own.pub", tmp_path / "nonsense.pub"
    own.write_bytes(found.files["public-key.txt"])
    nonsense.write_bytes(b"\xff\xfe")
    pinned = [["--public-key", str(key)] for key in (own, nonsense, tmp_path / "missing.pub")]
    calls = [[], ["--unknown"], [str(tmp_path / "missing.zip")], *([str(found.path), *key] for key in pinned)]
    codes, _ = stranger.verify(*calls)
    assert codes == [2] * len(calls)


# --- tampering -----------------------------------------------------------------------------------------


@pytest.mark.requirement("E-2")
def test_no_byte_of_the_archive_can_change(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    data = packs["submitted"].path.read_bytes()
    contents, offset = set(), 0
    for name, content in sorted(packs["submitted"].files.items()):
        start = offset + len(proof.zip_header(name, 0, 0))
        offset = start + len(content)
        # Content has one rule, its digest: some bytes of each file stand for all.
        contents |= {*range(start, offset)} - {*range(start, offset, max(1, len(content) // 7))}
    target = tmp_path / "pack.zip"
    for place in sorted({*range(len(data))} - contents):
        target.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        refused(target)


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("story", ["promoted", "erased"])
def test_no_file_can_be_edited_taken_out_or_added(
    packs: Mapping[str, Exported], tmp_path: Path, story: str
) -> None:
    files, target = packs[story].files, tmp_path / "pack.zip"
    for name, data in files.items():
        edited = refused(pack({**files, name: data + b" "}, target))
        assert "damaged on its way" in edited or name == "pack.json"
        refused(pack({**files, name: b""}, target))
        refused(pack(without(files, name), target))
    for name in ("zz.txt", "evidence/" + "0" * 64, "events/9999.json"):
        assert "added after the export" in refused(pack({**files, name: b"{}"}, target))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value inside JSON data stands."""
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """The data with another value at one place."""
    if path:
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[path[0]] = changed(value[path[0]], path[1:])
        return copy
    if isinstance(value, bool) or value is None:
        return "other" if value is None else not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return ("1" if value[:1] == "0" else "0") + value[1:]
    return "other"


@pytest.mark.slow
@pytest.mark.requirement("E-2")
@pytest.mark.parametrize(
    "story", ["promoted", *(pytest.param(other, marks=pytest.mark.soak) for other in ("erased", "denied"))]
)
def test_no_field_of_any_document_can_change_even_if_the_digests_are_made_to_fit(
    packs: Mapping[str, Exported], tmp_path: Path, story: str
) -> None:
    files, target = packs[story].files, tmp_path / "pack.zip"
    tried = 0
    for name, data in files.items():
        if not data.startswith(b"{"):
            continue
        document = parse_json(data)
        for place in leaves(document):
            forged = {**files, name: canonical_json(changed(document, place))}
            refused(pack(forged if name == "pack.json" else relisted(forged), target))
            tried += 1
    assert tried > 200


@pytest.mark.slow
@pytest.mark.requirement("E-2")
def test_no_byte_of_a_proof_a_checkpoint_or_a_key_can_change_even_if_the_digests_are_made_to_fit(
    packs: Mapping[str, Exported], tmp_path: Path
) -> None:
    files, target = packs["submitted"].files, tmp_path / "pack.zip"
    for name in ("checkpoint.txt", "public-key.txt", "events/0001.tlog-proof", "events/0001.json"):
        data = files[name]
        for place in range(len(data)):
            forged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            refused(pack(relisted({**files, name: forged}), target))


@pytest.mark.requirement("E-2")
def test_another_spelling_of_the_same_event_is_refused(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    files = packs["promoted"].files
    event = files["events/0001.json"]
    for forged in (
        event.replace(b'{"actor":', b'{"actor":"mara","actor":', 1),
        event.replace(b",", b", ", 1),
        event.replace(b'"schema_version":1', b'"schema_version":1.0'),
        event + b"\n",
        b"\xef\xbb\xbf" + event,
        event[:-1],
        event.replace(b"dana", b"d\\u0061na"),
        b"[" * 5000 + b"]" * 5000,
    ):
        assert forged != event
        assert "events/0001.json" in refused(
            pack(relisted({**files, "events/0001.json": forged}), tmp_path / "pack.zip")
        )


def without_event(files: Files, kind: str, nth: int = 0) -> Files:
    """The pack without one event, the others numbered anew and everything made to fit."""
    names = sorted(name for name in files if name.startswith("events/") and name.endswith(".json"))
    dropped = [name for name in names if parse_json(files[name])["kind"] == kind][nth]
    kept = {name: data for name, data in files.items() if not name.startswith("events/")}
    numbers = {}
    for number, name in enumerate([name for name in names if name != dropped], 1):
        path = f"events/{number:04}"
        kept[f"{path}.json"] = files[name]
        kept[f"{path}.tlog-proof"] = files[name.removesuffix(".json") + ".tlog-proof"]
        numbers[name] = f"{path}.json"
    texts = parse_json(files["personal.json"])["texts"]
    texts = [{**line, "event": numbers[line["event"]]} for line in texts if line["event"] in numbers]
    kept["personal.json"] = canonical_json({"texts": texts})
    return relisted(kept)


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize(
    ("story", "kind"),
    [
        ("promoted", "release.submitted"),
        ("promoted", "release.frozen"),
        ("promoted", "gate.evaluated"),
        ("promoted", "release.decided"),
        ("promoted", "approval.recorded"),
        ("promoted", "promotion.started"),
        ("promoted", "promotion.finished"),
        ("rejected", "approval.recorded"),
        ("denied", "gate.evaluated"),
    ],
)
def test_an_event_that_others_rest_on_cannot_be_left_out(
    packs: Mapping[str, Exported], tmp_path: Path, story: str, kind: str
) -> None:
    refused(pack(without_event(packs[story].files, kind), tmp_path / "pack.zip"))


@pytest.mark.requirement("E-2")
def test_a_text_can_neither_be_rewritten_nor_withheld(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    files = packs["rejected"].files
    personal = parse_json(files["personal.json"])
    line = personal["texts"][1]
    page = files["index.html"].decode()
    rewritten = [personal["texts"][0], {**line, "text": "Fine by me."}]
    named = {key: line[key] for key in ("commitment", "event", "field")}
    withheld = [personal["texts"][0], {**named, "erased": True}]
    for texts, shown, what in (
        (rewritten, "Fine by me.", "not the one that was written"),
        (withheld, "[erased]", "no event records the erasure"),
        (personal["texts"][:1], COMMENT, "does not list what the events seal"),
    ):
        forged = {
            **files,
            "personal.json": canonical_json({"texts": texts}),
            "index.html": page.replace(COMMENT, shown).encode(),
        }
        assert what in refused(pack(relisted(forged), tmp_path / "pack.zip"))


@pytest.mark.requirement("E-2")
def test_a_report_cannot_show_another_decision_verdict_or_answer(
    packs: Mapping[str, Exported], tmp_path: Path
) -> None:
    files, target = packs["promoted"].files, tmp_path / "pack.zip"
    page = files["index.html"].decode()
    for old, new in (
        ('data-fact="verdict">WARNED', 'data-fact="verdict">PASSED'),
        ('data-fact="answer.user">grace', 'data-fact="answer.user">omar'),
        ('data-fact="answer.choice">approve', 'data-fact="answer.choice">reject'),
        ('data-fact="track">red', 'data-fact="track">green'),
        (COMMENT, "No objection."),
        ("default-src &#39;none&#39;" if "&#39;none" in page else "default-src 'none'", "default-src *"),
    ):
        assert old in page
        forged = relisted({**files, "index.html": page.replace(old, new).encode()})
        assert "a report that was edited" in refused(pack(forged, target))


def test_what_nobody_signs_is_said_to_be_so(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    files = packs["promoted"].files
    forged = relisted({**files, "verify.py": b"print('VERDICT: VERIFIED')\n"})
    report = verify_pack(pack(forged, tmp_path / "pack.zip"))
    assert any("is not this verifier" in note for note in report.notes)
    assert any("nothing signs the words of index.html" in note for note in report.notes)


def test_evidence_of_another_release_is_refused(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    mine, other = packs["promoted"].files, packs["denied"].files
    for name in ("manifest.json", "decision.json", "workload.json", "checkpoint.txt", "events/0001.json"):
        if mine[name] != other[name]:
            refused(pack(relisted({**mine, name: other[name]}), tmp_path / "pack.zip"))


# --- keys ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("E-2")
def test_a_pack_of_another_key_is_not_verified(packs: Mapping[str, Exported]) -> None:
    key = SigningKey.generate(packs["promoted"].key.name).public
    assert "does not vouch" in refused(packs["promoted"].path, key)


@pytest.mark.requirement("E-2")
def test_who_pinned_an_older_or_the_newest_key_can_follow(world: World, tmp_path: Path) -> None:
    path = public_path(world.deployment.settings.signing_key)
    keys = [read_public_key(path)]
    release_id = rejected(world)
    for number in range(2):
        rotate_key(world.deployment, actor="petra", reason="a test")
        settle(world)
        world.submit("3", run=f"after {number}")
        settle(world)
        keys.append(read_public_key(path))
    assert len({key.id for key in keys}) == 3
    pack_path = export_pack(world.deployment, release_id, tmp_path / "pack.zip")
    for key in keys:
        assert verify_pack(pack_path, key).pinned, key
    assert "key-changes/0002.tlog-proof" in unpack(pack_path)
    # Without the change of key nobody who pinned the first one can follow.
    files = {name: data for name, data in unpack(pack_path).items() if not name.startswith("key-changes/")}
    refused(pack(relisted(files), tmp_path / "forged.zip"), keys[0])


def test_a_pack_exported_in_the_moment_of_a_rotation_is_still_of_the_old_key(
    world: World, tmp_path: Path
) -> None:
    path = public_path(world.deployment.settings.signing_key)
    old = read_public_key(path)
    release_id = rejected(world)
    settle(world)
    # Halfway through a rotation: the log names the new key, which has signed nothing yet.
    signing = world.deployment.settings.signing_key
    successor = SigningKey.generate(old.name)
    successor.save(next_path(signing))
    statement = rotation_statement(SigningKey.load(signing), successor.public, seconds=1)
    world.deployment.record(Kind.KEY_ROTATED, "key/next", actor="petra", data={"statement": statement})
    new = read_public_key(path)
    assert new == successor.public
    pack_path = export_pack(world.deployment, release_id, tmp_path / "pack.zip")
    assert verify_pack(pack_path, old).pinned
    assert "pin the older key" in refused(pack_path, new)


@pytest.mark.requirement("E-2")
def test_a_made_up_log_cannot_name_the_pinned_key_as_its_successor(
    packs: Mapping[str, Exported], tmp_path: Path
) -> None:
    """Anybody can sign that a known key follows theirs; only the known key could confirm that."""
    found = packs["submitted"]
    forger = SigningKey.generate(found.key.name)
    event = parse_json(found.files["events/0001.json"])
    statement = rotation_statement(forger, found.key, seconds=1)
    change = {**event, "key": "k", "kind": "key.rotated", "release_id": "", "data": {"statement": statement}}
    bodies = [canonical_json({**event, "actor": "mara"}), canonical_json(change)]
    hashes = [hash_leaf(body) for body in bodies]
    tree = Tree()
    tree.extend(hashes)
    note = forger.sign_checkpoint(2, tree.root, seconds=1_800_000_000)
    files = dict(found.files)
    for index, path in enumerate(("events/0001", "key-changes/0001")):
        siblings = (hashes[1 - index],)
        proved = InclusionProof(index, siblings, Checkpoint.parse(note), note)
        proved.verify(bodies[index])
        files |= {f"{path}.json": bodies[index], f"{path}.tlog-proof": str(proved).encode()}
    page = files["index.html"].decode().replace('submitter">dana', 'submitter">mara')
    files |= {
        "checkpoint.txt": note.encode(),
        "public-key.txt": proof.public_key_text(forger.public).encode(),
        "index.html": page.encode(),
    }
    listed = relisted(files)
    index = parse_json(listed["pack.json"])
    index["size"] = 2
    known = {
        "key-changes/0001.json": "event key.rotated",
        "key-changes/0001.tlog-proof": "proof that key-changes/0001.json stands in the log",
    }
    index["files"] = [{**line, "role": known.get(line["path"], line["role"])} for line in index["files"]]
    target = pack({**listed, "pack.json": canonical_json(index)}, tmp_path / "pack.zip")
    assert verify_pack(target).verified  # the forgery is perfect but for the key,
    assert "does not vouch" in refused(target, found.key)  # which is what a key is pinned for


# --- hostile archives ----------------------------------------------------------------------------------


def archive(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as found:
        for name, data in entries:
            found.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_other_programs_are_refused_without_unpacking(
    packs: Mapping[str, Exported], tmp_path: Path
) -> None:
    files = packs["promoted"].files
    target = tmp_path / "pack.zip"
    link = zipfile.ZipInfo("evidence/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    bomb = zipfile.ZIP_DEFLATED
    for entries, options in (
        ([*files.items()], {}),
        ([*files.items()], {"compression": bomb}),
        ([("pack.json", b"\0" * 50_000_000)], {"compression": bomb}),
        ([*files.items(), ("../outside", b"x")], {}),
        ([*files.items(), ("/etc/passwd", b"x")], {}),
        ([*files.items(), ("pack.json", b"{}")], {}),
        ([*files.items(), (link, b"/etc/passwd")], {}),
        ([], {}),
    ):
        refused(archive(target, [*entries], **options))
    assert [*tmp_path.iterdir()] == [target]


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a//b", "a/./b", "a\\b", ".hidden", "a/../../x", "con\0", "Ä", "a b", "x/"]
)
def test_names_that_lead_elsewhere_are_refused(
    packs: Mapping[str, Exported], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "pack.zip"
    placeholder = "y" * len(name.encode())
    line = (placeholder, zlib.crc32(b"x"), 1)
    data = proof.zip_header(*line) + b"x" + proof.zip_directory([line])
    path.write_bytes(data.replace(placeholder.encode(), name.encode()))
    assert "does not belong into a pack" in refused(path)


def test_a_file_that_stands_twice_is_refused(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    one = ("pack.json", zlib.crc32(b"{}"), 2)
    path = tmp_path / "pack.zip"
    path.write_bytes((proof.zip_header(*one) + b"{}") * 2 + proof.zip_directory([one, one]))
    assert "twice" in refused(path)


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    line = ("pack.json", zlib.crc32(b"{}"), 2)
    honest = proof.zip_header(*line) + b"{}" + proof.zip_directory([line])
    for lie in (1, 3, 2**31, 2**32 - 1):
        path.write_bytes(honest.replace((2).to_bytes(4, "little") * 2, lie.to_bytes(4, "little") * 2))
        refused(path)
    deep = tmp_path / "folder"
    deep.mkdir()
    with (deep / "huge").open("wb") as stream:
        stream.truncate(2**32)
    assert "more than a pack can hold" in refused(deep)
    sparse = tmp_path / "sparse.zip"
    size = 2**31
    with sparse.open("wb") as stream:
        stream.write(proof.zip_header("pack.json", 0, size))
        stream.seek(size, os.SEEK_CUR)
        stream.write(proof.zip_directory([("pack.json", 0, size)]))
    assert "more than such a file can have" in refused(sparse)


def test_a_truncated_or_longer_archive_is_refused(packs: Mapping[str, Exported], tmp_path: Path) -> None:
    data = packs["promoted"].path.read_bytes()
    path = tmp_path / "pack.zip"
    cuts = [*range(0, len(data), 997), *range(len(data) - 100, len(data))]
    for found in (*(data[:cut] for cut in cuts), data + b"\0", b"MZ" + data, b"", os.urandom(4096)):
        path.write_bytes(found)
        refused(path)


def test_a_folder_with_links_or_special_files_is_refused(
    packs: Mapping[str, Exported], tmp_path: Path
) -> None:
    makers: list[Callable[[Path], None]] = [
        lambda root: (root / "evidence" / "link").symlink_to("/etc/passwd"),
        lambda root: (root / "loop").symlink_to(root),
        lambda root: os.mkfifo(root / "pipe"),
        lambda root: (root / ".hidden").touch(),
        lambda root: (root / "added.txt").touch(),
        lambda root: (root / "events" / "0001.json").unlink(),
    ]
    for number, make in enumerate(makers):
        root = tmp_path / str(number)
        shutil.unpack_archive(packs["promoted"].path, root)
        assert verify_pack(root).verified
        make(root)
        refused(root)


@settings(deadline=None)
@given(data=st.binary(max_size=400))
def test_no_bytes_crash_the_verifier(data: bytes) -> None:
    with fast_folder() as folder:
        path = folder / "pack.zip"
        path.write_bytes(data)
        refused(path)
        refused(pack({"pack.json": data}, path))


NAMES = ["files", "format", "path", "sha256", "size", "role", "release_id"]


@settings(deadline=None, max_examples=50)
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_no_document_crashes_the_verifier(packs: Mapping[str, Exported], document: Any) -> None:
    files = packs["promoted"].files
    with fast_folder() as folder:
        target = folder / "pack.zip"
        data = proof.canonical(document)
        refused(pack({**files, "pack.json": data}, target))
        for name in ("personal.json", "manifest.json", "events/0001.json"):
            refused(pack(relisted({**files, name: data}), target))


# --- the report ----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.requirement("E-3")
@pytest.mark.parametrize("story", STORIES)
def test_the_report_loads_nothing_and_links_only_into_the_pack(
    packs: Mapping[str, Exported], story: str
) -> None:
    files = packs[story].files
    page = Page(files["index.html"].decode())
    assert page.tags.isdisjoint({"script", "iframe", "object", "embed", "link", "base", "form"})
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "@import" not in page.text
    assert "url(" not in page.text
    names = {value for name, value in page.attributes if name == "id"}
    for name, value in page.attributes:
        if name == "href":
            assert value.removeprefix("#") in names if value.startswith("#") else value in files, value
        if name == "src":
            assert value.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,"))


@pytest.mark.requirement("E-3")
def test_the_report_tells_the_story(packs: Mapping[str, Exported]) -> None:
    page = Page(packs["promoted"].files["index.html"].decode())
    told = (
        "ROC AUC is 0.81.",
        "at least 0.6",
        "The interval is wide.",
        COMMENT,
        "Why this release.",
        "better",
    )
    for text in told:
        assert text in page.text, text
    assert ("alt", "plot.svg") in page.attributes
    for story, text in (
        ("denied", "Nobody was asked: the release was denied."),
        ("rejected", "Rejected by grace (governance-analyst)"),
        ("erased", "[erased]"),
        ("waiting", "To be answered before"),
        ("submitted", "No decision was recorded."),
    ):
        assert text in Page(packs[story].files["index.html"].decode()).text, story


@pytest.mark.requirement("E-3")
def test_every_regime_is_held_against_what_this_release_has(packs: Mapping[str, Exported]) -> None:
    pages = [packs[story].files["index.html"].decode() for story in ("promoted", "submitted")]
    full, empty = (Page(page).text for page in pages)
    names = [regime.name for regime in REGIMES]
    wanted = "Annex IV", "Article 12", "Article 14", "SR 26-2", "ECOA", "Local Law 144", "GDPR, Article 22"
    for word in wanted:
        assert any(word in name for name in names), word
        assert word in full
    for regime in REGIMES:
        for asked in regime.asked:
            assert asked.what in full
            assert asked.what in empty
    uncovered = sum(not asked.sources for regime in REGIMES for asked in regime.asked)
    assert full.count("not covered by Airlock") == uncovered > 0
    assert "not part of this policy" in full  # the small policy judges no bias
    assert empty.count("not answered") >= 30


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> \N{RIGHT-TO-LEFT OVERRIDE}tfel "
    + "W" * 500
    + '"\'&amp; </bdi><bdi data-fact="state">promoted</bdi>\r\n\t\u2028end'
)


@pytest.mark.requirement("E-3")
def test_hostile_texts_stay_texts_and_the_pack_verifies(
    world: World, tmp_path: Path, stranger: Stranger
) -> None:
    release_id = world.judged("2", summary=HOSTILE, context=HOSTILE)
    world.answer(release_id, "grace", 0, choice="reject", comment=HOSTILE)
    close(world, release_id)
    settle(world)
    path = export_pack(world.deployment, release_id, tmp_path / "pack.zip")
    page = Page(unpack(path)["index.html"].decode())
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 4
    assert ("src", "x") not in page.attributes
    codes, printed = stranger.verify([str(path)], [str(path), "--format", "json"])
    assert codes == [0, 0]
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in printed
    assert dict(verify_pack(path).facts)["answer.comment"] == HOSTILE


# --- the command ---------------------------------------------------------------------------------------


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["airlock", "evidence", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.requirement("E-3")
def test_the_command_exports_and_verifies(
    packs: Mapping[str, Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    found = packs["promoted"]
    settings = found.world.deployment.settings
    monkeypatch.setenv("AIRLOCK_HOME", str(settings.home))
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(found.world.config))
    monkeypatch.setenv("AIRLOCK_DEPLOYMENT", "test")
    target = tmp_path / "pack.zip"
    code, out, _ = run("export", found.release_id, "-o", str(target), "--format", "json")
    assert code == 0
    assert json.loads(out)["bytes"] == target.stat().st_size
    assert target.read_bytes() == found.path.read_bytes()
    pinned = public_path(settings.signing_key)
    code, _, err = run("verify", str(target), "--public-key", str(pinned))
    assert code == 0
    assert f"VERDICT: VERIFIED with the key {found.key.id}" in err
    code, out, _ = run("verify", str(target), "--format", "json")
    assert code == 0
    report = json.loads(out)
    assert report["verified"]
    assert not report["pinned"]
    target.write_bytes(target.read_bytes()[:-1])
    code, out, _ = run("verify", str(target), "--format", "json")
    assert code == 3
    assert json.loads(out)["looks_like"]
    assert run("verify", str(tmp_path / "missing.zip"))[0] == 2
    own = tmp_path / "own.pub"
    own.write_bytes(found.files["public-key.txt"])
    assert run("verify", str(found.path), "--public-key", str(own))[0] == 2


# --- the verifier's own JSON ---------------------------------------------------------------------------


@settings(deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_the_verifier_writes_json_as_rfc_8785_asks_for(value: Any) -> None:
    data = rfc8785.dumps(value)
    assert proof.canonical(value) == data
    assert proof.canonical(proof.read_json(data)) == data
