"""Security: model files that run nothing when they are loaded, and packages without known holes.

Why it matters: a pickle is a program. Loading one runs whatever its author put into it, with the rights
of whoever loads it, and scanners that look for known bad calls miss new ones: of two common scanners,
both let a compressed malicious file pass when they were tried here. So this gate asks what a file is,
not whether it looks bad.

What good looks like: every file is metadata or a model in a format that only holds data (skops with
reviewed types, XGBoost .ubj, LightGBM text, ONNX, safetensors), is whole, holds no credentials, and is the
file that the manifest names. A key the policy trusts signed it, and none of the packages it needs has a known
vulnerability. The bill of materials (CycloneDX) is kept with the evidence.

How to fix it: log the model with mlflow.sklearn.log_model(..., serialization_format='skops'), which is
the default of MLflow 3; leave Python files, pickles and archives out of the artifact. Pin the packages in
its requirements and raise those that are unsafe; sign the folder with model-signing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from airlock.core.advisory import SEVERITIES, AdvisoryBook, Severity
from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.errors import AirlockError, UnavailableError
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.manifest import ArtifactRef
from airlock.gates._requirements import CONDA_ONLY, Requirement, affecting, read_requirements
from airlock.gates._sbom import bill_of_materials, reference
from airlock.gates._signature import check_signature
from airlock.gates.base import GateContext, Need, Stage, cannot_judge

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.ARTIFACT,)

_MB = 1 << 20
_SHOWN = 5  # names in a sentence; all of them stand in scan.json
_USE_SKOPS = "save with skops: mlflow.sklearn.log_model(..., serialization_format='skops')"

# Modules whose functions give a pickle the machine; used only to name the worst call first.
_MACHINE = {
    *("os", "posix", "nt", "subprocess", "pty", "sys", "shutil", "socket", "ctypes", "signal", "builtins"),
    *("__builtin__", "importlib", "runpy", "code", "codeop", "cProfile", "profile", "pdb", "timeit", "trace"),
    *("webbrowser", "urllib", "http", "requests", "asyncio", "multiprocessing", "pickle", "dill", "marshal"),
    *("types", "operator", "functools", "commands", "pip", "venv", "ensurepip", "idlelib", "bdb", "doctest"),
}


class Config(Value):
    """What an artifact may hold.

    Attributes:
        allowed_formats: model formats that only hold data; a pickle cannot be allowed here.
        reviewed_types: classes that skops does not trust by itself and that somebody looked at.
        maximum_mb: size of all files together, in MB of 1,048,576 bytes.
        maximum_files: number of files.
        signature: whether files must be signed; a signature that is there must be good unless it is ``off``.
        trusted_keys: name → public elliptic curve key (PEM) whose signatures count.
        advisories: what a missing or old advisory database means; ``off`` looks at no packages.
        maximum_advisory_days: age of the newest entry from which the database counts as old.
        fail_severity: the lightest vulnerability that fails; lighter ones warn, unrated ones fail.
        accepted_advisories: id → why it does no harm here; these are not reported.
    """

    allowed_formats: Annotated[
        list[Literal["skops", "ubj", "lightgbm-text", "onnx", "safetensors"]], Field(min_length=1)
    ]
    reviewed_types: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]]
    maximum_mb: Annotated[float, Field(gt=0)]
    maximum_files: Annotated[int, Field(gt=0)]
    signature: Literal["off", "optional", "required"]
    trusted_keys: dict[str, Annotated[str, Field(pattern=r"^-----BEGIN PUBLIC KEY-----\s")]]
    advisories: Literal["off", "warn", "required"]
    maximum_advisory_days: Annotated[float, Field(gt=0)]
    fail_severity: Severity
    accepted_advisories: dict[str, Annotated[str, Field(min_length=10)]]

    @model_validator(mode="after")
    def _somebody_can_sign(self) -> Self:
        if self.signature == "required" and not self.trusted_keys:
            raise ValueError("signature is required, but trusted_keys names no key: nothing could pass")
        return self


class _Secret(Value):
    kind: Annotated[str, Field(min_length=1, max_length=100)]
    line: Annotated[int, Field(ge=0)]


class _File(Value):
    """One file as the scanner describes it. The scanner read hostile bytes, so its words are checked."""

    path: Annotated[str, Field(min_length=1)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    format: Literal[
        "skops",
        "pickle",
        "ubj",
        "lightgbm-text",
        "onnx",
        "safetensors",
        "numpy",
        "text",
        "signature",
        "python",
        "unknown",
    ]
    problem: str = ""
    untrusted_types: list[str]
    pickle_globals: list[str]
    secrets: list[_Secret] = []


class _Scan(Value):
    files: Annotated[list[_File], Field(min_length=1)]
    versions: dict[str, str] = {}
    isolation: str = "none"
    attempts: list[str] = []


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Judge what the scanner found in the candidate's files."""
    if too_large := _too_large(context.candidate(), config):
        return too_large  # before anything is copied for the scanner
    raw = context.scan()
    try:
        scan = _Scan.model_validate(raw)
    except ValidationError as error:
        return cannot_judge(
            "scan-unusable",
            f"the scan of the model files is empty or malformed: {error.errors()[0]['msg']}",
            fix="run the gate again; an artifact without files must be logged again",
        )
    context.attach("scan.json", canonical_json(raw))
    findings = _mismatches(scan.files, context.candidate())
    findings += [finding for file in scan.files for finding in _judge_file(file, config)]
    findings += _judge_whole(scan.files, config)
    findings += _judge_attempts(scan.attempts)
    needed = read_requirements(context.artifact())
    book: AdvisoryBook | None = None
    unsafe: dict[str, list[str]] = {}
    if any(finding.id == "digest-mismatch" for finding in findings):
        needed = []  # these are not the files that would be released
    else:
        findings += _judge_signature(context, config)
        book, trouble = _advisories(context, needed, config)
        findings += trouble
        unsafe, about = _judge_packages(needed, book, config)
        findings += about
    bill = bill_of_materials(context.title, context.candidate(), needed, unsafe)
    context.attach("sbom.cdx.json", canonical_json(bill))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(scan.files, findings),
        findings=findings,
        metrics=[*_metrics(scan.files, config), *_package_metrics(needed, unsafe, book)],
        engines=dict(scan.versions),
        details={
            "formats": dict(sorted(Counter(file.format for file in scan.files).items())),
            "isolation": scan.isolation,
            "attempts": scan.attempts,
            "advisories": book.model_dump(mode="json", include={"sha256", "modified", "entries"})
            if book
            else None,
            "vulnerable": {ref: sorted(ids) for ref, ids in sorted(unsafe.items())},
        },
    )


def _too_large(artifact: ArtifactRef, config: Config) -> GateResult | None:
    """The refusal of an artifact that is far beyond its limits by what the manifest says alone."""
    findings = _size_findings(sum(file.size for file in artifact.files), len(artifact.files), config)
    if not findings:
        return None
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=f"{findings[0].message}; nothing in it was looked at.",
        findings=findings,
    )


def _judge_attempts(attempts: list[str]) -> list[Finding]:
    if not attempts:
        return []
    message = f"a file made the scanner try what it has no reason to: {_some(attempts)}"
    return [_failed("scan-attempt", message, "", "find out which file does this, and where it comes from")]


def _judge_signature(context: GateContext, config: Config) -> list[Finding]:
    if config.signature == "off" or not (config.trusted_keys or config.signature == "required"):
        return [_told("signature-not-checked", "signatures are not checked: the policy trusts no key")]
    checked = check_signature(context.artifact(), config.trusted_keys)
    fix = "sign the folder with model-signing and a key that the policy trusts, and log it again"
    if checked.good:
        return [_told("signature-good", f"the files are signed by {checked.key}")]
    if checked.missing and config.signature == "optional":
        return [_told("signature-missing", checked.problem)]
    if checked.impossible:
        fix = "install Airlock with the extra `signing` on the workers"
        return [Finding(id="signature-unchecked", verdict=Verdict.ERROR, message=checked.problem, fix=fix)]
    return [_failed("signature-bad", checked.problem, "", fix)]


def _advisories(
    context: GateContext, needed: Sequence[Requirement], config: Config
) -> tuple[AdvisoryBook | None, list[Finding]]:
    """What is known of the packages, and what is wrong with what is known."""
    if config.advisories == "off":
        return None, [_told("packages-not-audited", "packages are not audited: the policy says so")]
    verdict = Verdict.ERROR if config.advisories == "required" else Verdict.WARNED
    try:
        book = context.advisories([one.name for one in needed if one.name])
    except UnavailableError:
        raise
    except AirlockError as error:
        message = f"the packages are not audited: {error.what}"
        return None, [Finding(id="packages-not-audited", verdict=verdict, message=message, fix=error.fix)]
    if book.age_days <= config.maximum_advisory_days:
        return book, []
    message = (
        f"the newest entry of the advisory database is {book.age_days:.0f} days old, more than "
        f"{config.maximum_advisory_days:g}: newer holes are unknown"
    )
    fix = "copy the database again: see Known vulnerabilities in the operator's guide"
    return book, [Finding(id="advisories-old", verdict=verdict, message=message, fix=fix)]


def _judge_packages(
    needed: Sequence[Requirement], book: AdvisoryBook | None, config: Config
) -> tuple[dict[str, list[str]], list[Finding]]:
    """Unsafe packages with their advisories, and what to say about the requirements."""
    unsafe: dict[str, list[str]] = {}
    findings = list(_requirement_findings(needed)) if config.advisories != "off" else []
    for one in needed if book else ():
        found = [
            advisory
            for advisory in affecting(one, book.advisories if book else [])
            if advisory.id not in config.accepted_advisories
        ]
        if not one.version or not found:
            continue
        unsafe[reference(one)] = [advisory.id for advisory in found]
        worst = max(found, key=lambda advisory: SEVERITIES.index(advisory.severity))
        fails = SEVERITIES.index(worst.severity) >= SEVERITIES.index(config.fail_severity)
        fixed = sorted({part.fixed for advisory in found for part in advisory.ranges if part.fixed})
        findings.append(
            Finding(
                id="vulnerable-package",
                verdict=Verdict.FAILED if fails else Verdict.WARNED,
                message=f"{one.name} {one.version} ({one.file}) has known vulnerabilities, the worst of "
                f"severity {worst.severity}: {_some(unsafe[reference(one)])}",
                where=one.name,
                fix=f"train and log the model with a version that is not affected{_first_fixed(fixed)}",
            )
        )
    return unsafe, findings


def _first_fixed(versions: list[str]) -> str:
    return f"; fixed in {_some(versions)}" if versions else ""


def _requirement_findings(needed: Sequence[Requirement]) -> Iterator[Finding]:
    if not any(one.name not in CONDA_ONLY for one in needed if one.name):
        yield Finding(
            id="no-requirements",
            verdict=Verdict.WARNED,
            message="nothing in the artifact says which packages the model needs",
            fix="log the model with pip_requirements=[...], each pinned with ==",
        )
    for one in needed:
        if one.elsewhere:
            message = f"{one.file} takes packages from a place of its own: {one.line}"
            fix = "leave it out: packages come from the index that the deployment trusts"
            yield _failed("requirement-elsewhere", message, one.line[:100], fix)
        elif not one.name and not one.line.startswith(("-r", "--hash")):
            fix = "write it as PEP 508 says: name==version"
            yield _failed(
                "requirement-unreadable", f"{one.file} cannot be read: {one.line}", one.line[:100], fix
            )
    loose = sorted(
        {one.name for one in needed if one.name and not one.version} - CONDA_ONLY - _pinned(needed)
    )
    if loose:
        yield Finding(
            id="requirement-not-pinned",
            verdict=Verdict.WARNED,
            message=f"no version is named for {_some(loose)}, so nobody can tell whether it is safe",
            fix="log the model with pip_requirements=[...], each pinned with ==",
        )


def _pinned(needed: Sequence[Requirement]) -> set[str]:
    return {one.name for one in needed if one.version}


def _told(finding_id: str, message: str) -> Finding:
    """Something to know that changes no verdict: what was not looked at is never left unsaid."""
    return Finding(id=finding_id, verdict=Verdict.PASSED, message=message)


def _package_metrics(
    needed: Sequence[Requirement], unsafe: dict[str, list[str]], book: AdvisoryBook | None
) -> list[Metric]:
    count = len({one.name for one in needed if one.name})
    vulnerable = float(len(unsafe)) if book else None
    return [
        Metric(name="packages", value=float(count), unit="packages"),
        Metric(name="vulnerable_packages", value=vulnerable, threshold=0, direction="lower", n=count),
    ]


def _mismatches(files: list[_File], candidate: ArtifactRef) -> list[Finding]:
    """The files that were scanned must be those of the manifest: every byte, none more, none less."""
    scanned = {file.path: file.sha256 for file in files if file.sha256}
    named = {file.path: file.sha256 for file in candidate.files}
    changed = "is not the file that the manifest names"
    words = {(True, False): "is in the manifest and was not found", (False, True): "is not in the manifest"}
    return [
        Finding(
            id="digest-mismatch",
            verdict=Verdict.ERROR,
            message=f"{path} {words.get((path in named, path in scanned), changed)}",
            where=path,
            fix="submit a new release: the files changed after this one was frozen",
        )
        for path in sorted({*scanned, *named})
        if scanned.get(path) != named.get(path)
    ]


def _judge_file(file: _File, config: Config) -> list[Finding]:
    """The first thing that is wrong with a file, from the most to the least dangerous."""
    unreviewed = sorted(set(file.untrusted_types) - set(config.reviewed_types))
    finding = None
    if file.format == "pickle":
        finding = ("pickle-in-artifact", _what_it_does(file), _USE_SKOPS)
    elif file.format == "python":
        message = "is program code, which would run with the rights of whoever loads the model"
        fix = "log the model without code_paths; put shared code into an installed package"
        finding = ("code-in-artifact", message, fix)
    elif file.secrets:
        hits = [f"{hit.kind} (line {hit.line})" if hit.line else hit.kind for hit in file.secrets]
        fix = "revoke the credential now: it is in the registry; then log the model without it"
        finding = ("secret-in-artifact", f"holds what looks like a credential: {_some(hits)}", fix)
    elif file.problem:
        fix = "log the model again; if the problem stays, find out where the file comes from"
        finding = ("broken-file", file.problem, fix)
    elif file.format == "unknown":
        fix = f"remove the file from the artifact, or {_USE_SKOPS}"
        finding = ("unknown-format", "is in no format that is known to be safe", fix)
    elif file.format not in {"text", "signature", *config.allowed_formats}:
        message = f"is {file.format}; allowed are {', '.join(config.allowed_formats)}"
        finding = ("format-not-allowed", message, _USE_SKOPS)
    elif unreviewed:
        fix = "build the model from scikit-learn's own classes, or ask the policy owner to review these types"
        finding = ("unreviewed-types", f"holds types that nobody has reviewed: {_some(unreviewed)}", fix)
    if finding is None:
        return []
    return [_failed(finding[0], f"{file.path} {finding[1]}", file.path, finding[2])]


def _what_it_does(file: _File) -> str:
    """What a pickle would do, worst first: the reader should see `os.system` and not `numpy.dtype`."""
    names = [name.replace(" ", ".", 1) for name in file.pickle_globals]
    worst = [name for name in names if name.split(".", 1)[0] in _MACHINE]
    if worst:
        return f"is a pickle that calls {_some(worst)}"
    if names:
        return f"is a pickle that loads {_some(names)}"
    return f"is a pickle ({file.problem})" if file.problem else "is a pickle"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _judge_whole(files: list[_File], config: Config) -> list[Finding]:
    findings = _size_findings(sum(file.size for file in files), len(files), config)
    if all(file.format in {"text", "python", "signature"} for file in files):
        findings.append(_failed("no-model-file", "the artifact holds no model file", "", _USE_SKOPS))
    return findings


def _size_findings(size: int, count: int, config: Config) -> list[Finding]:
    findings = []
    if size > config.maximum_mb * _MB:
        message = f"the artifact has {size / _MB:.1f} MB, more than {config.maximum_mb:g} MB"
        fix = "remove training data and checkpoints from it, or ask the policy owner for a larger limit"
        findings.append(_failed("artifact-too-large", message, "", fix))
    if count > config.maximum_files:
        message = f"the artifact has {count} files, more than {config.maximum_files}"
        findings.append(
            _failed("too-many-files", message, "", "log the model only, not the folder around it")
        )
    return findings


def _failed(finding_id: str, message: str, where: str, fix: str) -> Finding:
    return Finding(id=finding_id, verdict=Verdict.FAILED, message=message, where=where, fix=fix)


def _summary(files: list[_File], findings: list[Finding]) -> str:
    asking = [finding for finding in findings if finding.verdict is not Verdict.PASSED]
    refusing = [finding for finding in asking if not finding.verdict.allows]
    models = sorted({file.format for file in files} - {"text", "signature"})
    good = f"All {len(files)} files are metadata or safe model formats ({', '.join(models)})"
    if not asking:
        return f"{good}."
    if not refusing:
        return f"{good}; {'; '.join(finding.message for finding in asking)}."
    first = max(refusing, key=lambda finding: finding.verdict is Verdict.ERROR)
    more = f", and {len(asking) - 1} more findings" if len(asking) > 1 else ""
    return f"{first.message}{more}."


def _metrics(files: list[_File], config: Config) -> list[Metric]:
    size, count = sum(file.size for file in files), len(files)
    limits = {"files": (count, config.maximum_files, "files"), "bytes": (size, config.maximum_mb * _MB, "B")}
    return [
        Metric(name=name, value=float(value), threshold=float(limit), direction="lower", unit=unit)
        for name, (value, limit, unit) in limits.items()
    ]
