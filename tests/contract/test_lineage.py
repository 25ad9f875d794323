"""Lineage: links of real tools are followed, and whatever does not hold is named."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from airlock.adapters.lineage import folder_md5, follow
from airlock.core.declarations import LineageSpec
from airlock.core.evidence import GateResult, Verdict
from airlock.core.lineage import Link
from airlock.core.manifest import ArtifactRef, FileRef
from airlock.ports import RunFacts
from airlock.services.lineage import collect_links
from airlock.services.run_gate import run_gate
from tests.support.gates import ZERO, make_context
from tests.support.judge import finding, judge

pytestmark = pytest.mark.requirement("G-2")


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def dvc_file(folder: Path, outs: list[dict[str, Any]], name: str = "data.dvc") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({"outs": outs}))
    return path


def only(folder: Path, **spec: Any) -> Link:
    (link,) = follow(LineageSpec.model_validate(spec), folder)
    return link


def test_a_dvc_file_and_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"a,b\n1,2\n")
    dvc_file(tmp_path, [{"md5": md5(b"a,b\n1,2\n"), "hash": "md5", "path": "train.csv"}])
    assert only(tmp_path, dvc=["data.dvc"]).broken == ""
    (tmp_path / "train.csv").write_bytes(b"a,b\n1,3\n")
    assert "is not what was claimed" in only(tmp_path, dvc=["data.dvc"]).broken
    (tmp_path / "train.csv").unlink()
    assert "dvc pull" in only(tmp_path, dvc=["data.dvc"]).broken


def test_the_hash_of_a_folder_is_dvcs(tmp_path: Path) -> None:
    """The example of DVC's own format: sorted by relpath, JSON with spaces, MD5, ``.dir``."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "b.txt").write_bytes(b"b")
    (data / "a.txt").write_bytes(b"a")
    (data / "sub" / "c.txt").write_bytes(b"c")
    listed = [{"md5": md5(name[-1:].encode()), "relpath": f"{path}.txt"} for name, path in
              (("a", "a"), ("b", "b"), ("c", "sub/c"))]  # fmt: skip
    expected = md5(json.dumps(listed).encode()) + ".dir"
    assert folder_md5(data) == expected
    dvc_file(tmp_path, [{"md5": expected, "path": "data"}])
    assert only(tmp_path, dvc=["data.dvc"]).broken == ""
    (data / "new.txt").write_bytes(b"n")
    assert only(tmp_path, dvc=["data.dvc"]).broken


def test_line_ends_counted_differently_before_version_3(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a\r\nb\r\n")
    dvc_file(tmp_path, [{"md5": md5(b"a\nb\n"), "path": "t.csv"}])
    assert only(tmp_path, dvc=["data.dvc"]).broken == ""
    dvc_file(tmp_path, [{"md5": md5(b"a\nb\n"), "hash": "md5", "path": "t.csv"}])
    assert only(tmp_path, dvc=["data.dvc"]).broken


def test_a_dvc_lock_names_dependencies_outputs_and_parameters(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"in")
    (tmp_path / "out.bin").write_bytes(b"out")
    stage = {
        "cmd": "python train.py",
        "deps": [{"path": "in.csv", "md5": md5(b"in"), "hash": "md5"}],
        "params": {"params.yaml": {"train.lr": 0.1}},
        "outs": [{"path": "out.bin", "md5": md5(b"other"), "hash": "md5"}],
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train": stage}}))
    links = follow(LineageSpec(dvc=["dvc.lock"]), tmp_path)
    assert [(link.kind, link.name, bool(link.broken)) for link in links] == [
        ("data", "dvc.lock: in.csv", False),
        ("data", "dvc.lock: out.bin", True),
        ("parameters", "dvc.lock: train", False),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be read"),
        ("- 1", "names no file"),
        ("outs: text", "names no file"),
        ("stages: [1]", "names no file"),
        ("outs: [{path: x.csv}]", "has no md5"),
        ("outs: [{path: ../../etc/passwd, md5: abc}]", "leaves the repository"),
        ("outs: [{path: /etc/passwd, md5: abc}]", "leaves the repository"),
        ("wdir: ../..\nouts: [{path: x, md5: abc}]", "leaves the repository"),
        ("outs: [{path: x, md5: [1", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_hostile_dvc_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "data.dvc").write_text(content)
    assert words in only(tmp_path, dvc=["data.dvc"]).broken


def test_paths_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", "/etc/passwd", "link"):
        assert "leaves the repository" in only(root, lock_file=name).broken
        assert "leaves the repository" in only(root, dvc=[name]).broken


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        (f"lakefs://repo/{'a1' * 32}/train.parquet", True),
        ("lakefs://repo/a1b2c3d4e5f60718/train.parquet", True),
        ("lakefs://repo/main/train.parquet", False),
        ("lakefs://repo/v1.0/train.parquet", False),
        ("s3://bucket/x", False),
    ],
)
def test_a_lakefs_commit_and_not_a_branch(tmp_path: Path, address: str, holds: bool) -> None:
    assert (only(tmp_path, lakefs=[address]).broken == "") is holds


def test_a_feature_view_is_defined_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "views.py").write_text('applicants = FeatureView(name="applicants", entities=[])')
    view = {"name": "applicants", "definition": "views.py"}
    assert only(tmp_path, feature_views=[view]).broken == ""
    assert "is not defined" in only(tmp_path, feature_views=[{**view, "name": "applicant"}]).broken
    assert "is not there" in only(tmp_path, feature_views=[{**view, "definition": "gone.py"}]).broken


def test_a_lock_file_with_nothing_in_it_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("numpy==2\n")
    assert only(tmp_path, lock_file="lock").broken == ""
    (tmp_path / "lock").write_text("  \n")
    assert only(tmp_path, lock_file="lock").broken == "is empty"


def git(folder: Path, *words: str) -> str:
    program = shutil.which("git") or "git"
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        [program, "-C", folder, *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_commit_must_exist_on_a_branch_and_an_unnamed_one_be_clean(tmp_path: Path) -> None:
    assert only(tmp_path, repository=".").problem.startswith("is no git repository")
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "train.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    first = git(tmp_path, "rev-parse", "HEAD")
    assert only(tmp_path, repository=".") == Link(kind="code", tool="git", name=".", found=first)
    assert only(tmp_path, repository=".", commit=first).broken == ""
    assert "has no commit" in only(tmp_path, repository=".", commit="1" * 40).broken
    (tmp_path / "train.py").write_text("2")
    assert "not committed" in only(tmp_path, repository=".").broken
    assert only(tmp_path, repository=".", commit=first).broken == ""
    git(tmp_path, "commit", "-q", "-a", "-m", "two")
    second = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "reset", "-q", "--hard", first)
    assert "on no branch" in only(tmp_path, repository=".", commit=second).broken


def test_nothing_of_the_repository_is_run(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    only(tmp_path, repository=".")
    assert not (tmp_path / "ran").exists()


def lineage(links: list[Link], **changes: Any) -> GateResult:
    return judge("lineage", make_context(links=links), **changes)[0]


def artifact(**metadata: Any) -> ArtifactRef:
    files = [FileRef(path="requirements.txt", sha256=ZERO, size=1)]
    return ArtifactRef(version="2", sha256=ZERO, files=files, metadata=metadata)


def collected(training: str = "a" * 64, *, params: bool = True, **metadata: Any) -> list[Link]:
    run = RunFacts(params={"C": "1"} if params else {})
    return collect_links(LineageSpec(), Path(), artifact(**metadata), training_sha256=training, run=run)


def test_an_artifact_that_names_its_data_parameters_and_libraries_passes() -> None:
    assert lineage(collected(training_sha256="a" * 64)).verdict is Verdict.PASSED


def test_a_missing_link_fails_and_says_which() -> None:
    unnamed = lineage(collected())
    assert unnamed.verdict is Verdict.FAILED
    assert "training data is not named by the artifact" in finding(unnamed, "data.artifact").message
    assert finding(lineage(collected(params=False, training_sha256="a" * 64)), "parameters.missing")
    nothing = lineage([])
    assert {one.id for one in nothing.findings} == {
        "data.missing",
        "environment.missing",
        "parameters.missing",
    }
    assert lineage(collected(training_sha256="a" * 64), required=["code"]).verdict is Verdict.FAILED


@pytest.mark.parametrize(("rule", "verdict"), [("warn", Verdict.WARNED), ("fail", Verdict.FAILED)])
def test_training_on_other_data_is_what_the_policy_says(rule: str, verdict: Verdict) -> None:
    assert lineage(collected(training_sha256="b" * 64), other_training_data=rule).verdict is verdict


def test_a_broken_link_fails_although_another_of_its_kind_holds() -> None:
    links = [
        *collected(training_sha256="a" * 64),
        Link(kind="data", tool="dvc", name="x", claimed="1", found="2"),
    ]
    assert finding(lineage(links), "data.dvc").where == "x"


def test_the_gate_follows_links_of_plain_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"1")
    (tmp_path / "lock").write_text("numpy==2\n")
    dvc_file(tmp_path, [{"md5": md5(b"1"), "path": "train.csv"}])
    config = tmp_path / "lineage.yaml"
    spec = {"dvc": ["data.dvc"], "lock_file": "lock"}
    config.write_text(yaml.safe_dump({"lineage": spec, "limits": {"required": ["data", "environment"]}}))
    assert run_gate("lineage", config).result.verdict is Verdict.PASSED
    (tmp_path / "train.csv").write_bytes(b"2")
    assert run_gate("lineage", config).result.verdict is Verdict.FAILED
