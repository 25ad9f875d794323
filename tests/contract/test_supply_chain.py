"""The security gate on what a model needs and who made it: packages, signature, bill of materials."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from airlock.adapters.advisories import read_advisories
from airlock.adapters.sandbox.inside import scan
from airlock.adapters.sandbox.inside.secrets import find_secrets
from airlock.core.advisory import Advisory, VersionRange
from airlock.core.canonical import parse_json
from airlock.core.errors import InvalidInputError, NotFoundError
from airlock.core.evidence import GateResult, Verdict
from airlock.core.manifest import ArtifactRef, FileRef
from airlock.gates._requirements import Requirement, affecting, read_requirements
from airlock.gates.base import GateContext, no_advisories
from tests.support.gates import make_context, make_manifest, make_workload
from tests.support.judge import finding, judge, metric
from tests.support.scans import known

pytestmark = pytest.mark.requirement("G-8")

DAY_US = 24 * 3600 * 1_000_000
NOW_US = 20_000 * DAY_US  # 2024-10-04
HOLE = {
    "id": "GHSA-xxxx",
    "modified": "2024-10-01T00:00:00Z",
    "summary": "runs what it reads",
    "database_specific": {"severity": "CRITICAL"},
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "Scikit_Learn"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5.0"}]}],
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact as MLflow writes it."""
    root = tmp_path / "inputs" / "model"
    root.mkdir(parents=True)
    (root / "m.lgb").write_text("tree\nversion=v4\n")
    (root / "MLmodel").write_text("flavors: {}\n")
    (root / "requirements.txt").write_text("scikit-learn==1.4.2\nnumpy==2.1.0\n")
    return root


def artifact_context(root: Path) -> GateContext:
    """The context of a release of these files, with a real scan of them."""
    output = root.parents[1] / "output"
    output.mkdir(exist_ok=True)
    scan.run({"artifact": root.name}, root.parent, output)
    report = json.loads((output / "scan.json").read_text())
    files = [
        FileRef(path=f["path"], sha256=f["sha256"], size=f["size"]) for f in report["files"] if f["sha256"]
    ]
    artifact = ArtifactRef(version="2", sha256=ArtifactRef.digest_files(files), files=files)
    manifest = make_manifest(make_workload(), candidate=artifact)
    context = make_context(scan=report, manifest=manifest, artifact=root)
    context.advisories = lambda _: known()
    return context


def verdict_of(root: Path, **changes: Any) -> GateResult:
    return judge("security", artifact_context(root), **changes)[0]


# Packages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("numpy==2.1.0", ("numpy", "2.1.0")),
        ("Scikit_Learn == 1.5 ; python_version > '3'", ("scikit-learn", "1.5")),
        ("pandas[all]==3.0.6 --hash=sha256:00", ("pandas", "3.0.6")),
        ("numpy>=2", ("numpy", "")),
        ("numpy==2.*", ("numpy", "")),
        ("x==1 \\\n  --hash=sha256:00", ("x", "1")),
        ("y==1  # a remark", ("y", "1")),
    ],
)
def test_requirements_are_read(tmp_path: Path, text: str, expected: tuple[str, str]) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    (found,) = read_requirements(tmp_path)
    assert (found.name, found.version) == expected


def test_conda_and_python_env_count_too(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text(
        "dependencies:\n- python=3.11.7\n- conda-forge::xgboost=2.0.3\n- pip\n- pip:\n  - skops==0.10\n"
    )
    (tmp_path / "python_env.yaml").write_text(
        "build_dependencies:\n- pip==24.0\ndependencies:\n- -r requirements.txt\n"
    )
    found = {(one.name, one.version) for one in read_requirements(tmp_path)}
    assert found == {
        ("python", "3.11.7"),
        ("xgboost", "2.0.3"),
        ("pip", ""),
        ("skops", "0.10"),
        ("pip", "24.0"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "[",
        "!!python/object:os.system x",
        "dependencies: 7",
        "- x",
        "\x00",
        "dependencies: [{pip: 7}]",
    ],
)
def test_hostile_yaml_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "conda.yaml").write_text(text)
    assert read_requirements(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "finding_id", "verdict"),
    [
        ("--index-url https://evil.example/simple", "requirement-elsewhere", Verdict.FAILED),
        ("-e git+https://evil.example/x.git", "requirement-elsewhere", Verdict.FAILED),
        ("numpy @ https://evil.example/numpy.whl", "requirement-elsewhere", Verdict.FAILED),
        ("not a requirement!", "requirement-unreadable", Verdict.FAILED),
        ("pandas", "requirement-not-pinned", Verdict.WARNED),
    ],
)
def test_a_requirement_that_cannot_be_judged_is_said(
    folder: Path, line: str, finding_id: str, verdict: Verdict
) -> None:
    (folder / "requirements.txt").write_text(f"scikit-learn==1.5.2\n{line}\n")
    result = verdict_of(folder)
    assert result.verdict is verdict
    assert finding(result, finding_id).fix


def test_nothing_said_about_packages_is_a_warning(folder: Path) -> None:
    (folder / "requirements.txt").unlink()
    assert finding(verdict_of(folder), "no-requirements").verdict is Verdict.WARNED


def test_a_vulnerable_package_fails_by_its_severity(folder: Path) -> None:
    hole = Advisory(
        id="GHSA-1", package="scikit-learn", severity="medium", ranges=[VersionRange(fixed="1.5.0")]
    )
    context = artifact_context(folder)
    context.advisories = lambda _: known(hole)
    result, files = judge("security", context)
    assert result.verdict is Verdict.WARNED
    assert "scikit-learn 1.4.2" in finding(result, "vulnerable-package", "scikit-learn").message
    assert "fixed in 1.5.0" in finding(result, "vulnerable-package").fix
    assert metric(result, "vulnerable_packages").value == 1
    assert result.details["vulnerable"] == {"pkg:pypi/scikit-learn@1.4.2": ["GHSA-1"]}
    assert judge("security", context, fail_severity="medium")[0].verdict is Verdict.FAILED
    accepted = {"GHSA-1": "the model never reads a file of others"}
    assert judge("security", context, accepted_advisories=accepted)[0].verdict is Verdict.PASSED
    context.advisories = lambda _: known(hole.model_copy(update={"severity": "unknown"}))
    assert judge("security", context)[0].verdict is Verdict.FAILED
    assert parse_json(files["sbom.cdx.json"])["vulnerabilities"][0]["id"] == "GHSA-1"


@given(
    st.tuples(*[st.integers(0, 3)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
)
def test_ranges_are_those_of_packaging(version: Any, low: Any, high: Any) -> None:
    text, first, last = (".".join(map(str, parts)) for parts in (version, low, high))
    one = Advisory(id="A", package="x", ranges=[VersionRange(introduced=first, fixed=last)])
    found = affecting(Requirement("x", text, "", ""), [one])
    assert bool(found) is SpecifierSet(f">={first},<{last}").contains(text)
    until = Advisory(id="A", package="x", ranges=[VersionRange(introduced=first, last_affected=last)])
    assert bool(affecting(Requirement("x", text, "", ""), [until])) is SpecifierSet(
        f">={first},<={last}"
    ).contains(text)


def test_a_version_named_alone_counts_and_an_unreadable_one_is_affected() -> None:
    one = Advisory(id="A", package="x", versions=["1.0.0"])
    assert affecting(Requirement("x", "1.0.0", "", ""), [one])
    assert not affecting(Requirement("x", "1.0.1", "", ""), [one])
    assert affecting(Requirement("x", "not-a-version", "", ""), [one])
    assert not affecting(Requirement("y", "1.0.0", "", ""), [one])


# The database


def as_folder(path: Path) -> Path:
    path.mkdir()
    (path / "GHSA-xxxx.json").write_text(json.dumps(HOLE))
    return path


def as_lines(path: Path) -> Path:
    path.write_text(json.dumps(HOLE) + "\n\n")
    return path


def as_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("GHSA-xxxx.json", json.dumps(HOLE))
    return path


@pytest.mark.parametrize("write", [as_folder, as_lines, as_zip])
def test_the_database_is_a_folder_lines_or_the_published_zip(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    book = read_advisories(write(tmp_path / "osv"), ["scikit-learn", "numpy"], NOW_US)
    (found,) = book.advisories
    assert (found.id, found.package, found.severity) == ("GHSA-xxxx", "scikit-learn", "critical")
    assert found.ranges == [VersionRange(introduced="0", fixed="1.5.0")]
    assert book.age_days == 3
    assert book.entries == 1


def test_withdrawn_entries_and_other_ecosystems_do_not_count(tmp_path: Path) -> None:
    other = json.loads(json.dumps(HOLE).replace("PyPI", "npm"))
    (tmp_path / "osv").write_text(
        "\n".join(json.dumps(one) for one in ({**HOLE, "withdrawn": "2024-01-01"}, other))
    )
    book = read_advisories(tmp_path / "osv", ["scikit-learn"], NOW_US)
    assert (book.advisories, book.entries) == ([], 2)


@pytest.mark.parametrize(
    "text", ["", "\n", "[]", "{", '{"id": 7}', '{"id": "A"}', '{"id": "A", "modified": "soon"}']
)
def test_a_broken_database_is_no_database(tmp_path: Path, text: str) -> None:
    (tmp_path / "osv").write_text(text)
    with pytest.raises(InvalidInputError) as raised:
        read_advisories(tmp_path / "osv", ["x"], NOW_US)
    assert "docs/operator.md" in raised.value.fix
    with pytest.raises(NotFoundError):
        read_advisories(tmp_path / "gone", ["x"], NOW_US)


def test_a_missing_or_old_database_is_never_a_silent_pass(folder: Path) -> None:
    context = artifact_context(folder)
    for advisories, finding_id in (
        (no_advisories, "packages-not-audited"),
        (lambda _: known(age_days=31), "advisories-old"),
    ):
        context.advisories = advisories
        for policy, verdict in (("warn", Verdict.WARNED), ("required", Verdict.ERROR)):
            result, _ = judge("security", context, advisories=policy)
            assert result.verdict is verdict
            assert finding(result, finding_id).fix
    context.advisories = no_advisories
    result, _ = judge("security", context, advisories="off")
    assert result.verdict is Verdict.PASSED
    assert "not audited" in finding(result, "packages-not-audited").message


# Signature


def make_key(path: Path) -> str:
    """A private key at ``path``; its public half as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, public).decode()


def sign(root: Path, key: Path) -> None:
    from model_signing import signing

    signing.Config().use_elliptic_key_signer(private_key=key).sign(root, root / "model.sig")  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_a_signature_counts_when_a_trusted_key_made_it_for_these_files(folder: Path, tmp_path: Path) -> None:
    keys = {"release": make_key(tmp_path / "good"), "other": make_key(tmp_path / "other")}
    sign(folder, tmp_path / "good")
    wanted: dict[str, Any] = {"signature": "required", "trusted_keys": keys}
    result = verdict_of(folder, **wanted)
    assert result.verdict is Verdict.PASSED, result.summary
    assert finding(result, "signature-good").message == "the files are signed by release"
    (folder / "registered_model_meta").write_text("model_name: m\n")  # MLflow adds it when it registers
    assert verdict_of(folder, **wanted).verdict is Verdict.PASSED
    result = verdict_of(folder, signature="required", trusted_keys={"other": keys["other"]})
    assert "no trusted key" in finding(result, "signature-bad").message
    assert result.verdict is Verdict.FAILED
    (folder / "added.txt").write_text("x")
    assert (
        "nobody signed are in the artifact: added.txt"
        in finding(verdict_of(folder, **wanted), "signature-bad").message
    )
    (folder / "added.txt").unlink()
    (folder / "m.lgb").write_text("tree\nversion=v4\n\n")
    result = verdict_of(folder, **{**wanted, "signature": "optional"})
    assert result.verdict is Verdict.FAILED
    assert "mismatch" in finding(result, "signature-bad").message.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["{}", "x", '{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}', "[]"]
)
def test_a_broken_signature_is_a_bad_one(folder: Path, tmp_path: Path, text: str) -> None:
    (folder / "model.sig").write_text(text)
    result = verdict_of(folder, signature="optional", trusted_keys={"release": make_key(tmp_path / "k")})
    assert result.verdict is Verdict.FAILED
    assert finding(result, "signature-bad")


def test_an_unsigned_model_fails_where_signatures_are_required(folder: Path, tmp_path: Path) -> None:
    keys = {"release": make_key(tmp_path / "k")}
    assert verdict_of(folder, signature="required", trusted_keys=keys).verdict is Verdict.FAILED
    result = verdict_of(folder, signature="optional", trusted_keys=keys)
    assert result.verdict is Verdict.PASSED
    assert finding(result, "signature-missing").message == "the artifact is not signed"
    assert "trusts no key" in finding(verdict_of(folder), "signature-not-checked").message


# Credentials

SECRETS = {
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "AWS access key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "GitHub token": "ghp_" + "a1B2" * 9,
    "Slack token": "xoxb-" + "123456789012-abcdef",
    "Hugging Face token": "hf_" + "aB3" * 12,
    "URL with a password": "postgresql://airlock:" + "hunter22@db.example/x",
    "password": "password: " + "correct-horse",
    "JSON web token": "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 20,
}


@pytest.mark.parametrize(("kind", "secret"), SECRETS.items())
def test_a_credential_in_a_file_fails_and_is_not_repeated(folder: Path, kind: str, secret: str) -> None:
    (folder / "notes.txt").write_text(f"first line\nuse {secret} here\n")
    result, files = judge("security", artifact_context(folder))
    assert result.verdict is Verdict.FAILED
    found = finding(result, "secret-in-artifact", "notes.txt")
    assert f"{kind} (line 2)" in found.message
    assert "revoke" in found.fix
    for data in (result.to_bytes(), *files.values()):
        assert secret.encode() not in data


@pytest.mark.parametrize(
    "text",
    ["password: ${DB_PASSWORD}", "password=None", "https://example.org/a:b@c d", "secret_key: <your key>",
     "token count: 12345678", "http://user@host/", "api_key=****************"],
)  # fmt: skip
def test_placeholders_are_no_credentials(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    assert find_secrets(tmp_path / "x.txt") == []


# Bill of materials


def test_the_bill_names_model_files_and_packages_and_is_the_same_each_time(folder: Path) -> None:
    _, first = judge("security", artifact_context(folder))
    _, second = judge("security", artifact_context(folder))
    assert first["sbom.cdx.json"] == second["sbom.cdx.json"]
    bill = parse_json(first["sbom.cdx.json"])
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["serialNumber"].startswith("urn:uuid:")
    assert bill["metadata"]["component"]["type"] == "machine-learning-model"
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert parts["pkg:pypi/numpy@2.1.0"]["purl"] == "pkg:pypi/numpy@2.1.0"
    assert parts["file:m.lgb"]["hashes"][0]["alg"] == "SHA-256"
    assert set(bill["dependencies"][0]["dependsOn"]) == set(parts)
    assert len(parts) == 5
