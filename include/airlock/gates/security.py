"""Security: model files that cannot run anything when they are loaded.

Why it matters: a pickle is a program. Loading one runs whatever its author put into it, with the rights
of whoever loads it, and scanners that look for known bad calls miss new ones: of two common scanners,
both let a compressed malicious file pass when they were tried here. So this gate asks what a file is,
not whether it looks bad.

What good looks like: every file is metadata or a model in a format that only holds data (skops with
reviewed types, XGBoost .ubj, LightGBM text, ONNX, safetensors), is whole, and is the file that the
manifest names.

How to fix it: log the model with mlflow.sklearn.log_model(..., serialization_format='skops'), which is
the default of MLflow 3; leave Python files, pickles and archives out of the artifact. A model that cannot
do without a pickle needs a waiver for the rule that fires here.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.manifest import ArtifactRef
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
    """

    allowed_formats: Annotated[
        list[Literal["skops", "ubj", "lightgbm-text", "onnx", "safetensors"]], Field(min_length=1)
    ]
    reviewed_types: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]]
    maximum_mb: Annotated[float, Field(gt=0)]
    maximum_files: Annotated[int, Field(gt=0)]


class _File(Value):
    """One file as the scanner describes it. The scanner read hostile bytes, so its words are checked."""

    path: Annotated[str, Field(min_length=1)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    format: Literal[
        "skops", "pickle", "ubj", "lightgbm-text", "onnx", "safetensors", "numpy", "text", "python", "unknown"
    ]
    problem: str = ""
    untrusted_types: list[str]
    pickle_globals: list[str]


class _Scan(Value):
    files: Annotated[list[_File], Field(min_length=1)]
    versions: dict[str, str] = {}
    isolation: str = "none"
    attempts: list[str] = []


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Judge what the scanner found in the candidate's files."""
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
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(scan.files, findings),
        findings=findings,
        metrics=_metrics(scan.files, config),
        engines=dict(scan.versions),
        details={"formats": dict(sorted(Counter(file.format for file in scan.files).items()))},
    )


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
    elif file.problem:
        fix = "log the model again; if the problem stays, find out where the file comes from"
        finding = ("broken-file", file.problem, fix)
    elif file.format == "unknown":
        fix = f"remove the file from the artifact, or {_USE_SKOPS}"
        finding = ("unknown-format", "is in no format that is known to be safe", fix)
    elif file.format != "text" and file.format not in config.allowed_formats:
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
    findings = []
    size = sum(file.size for file in files)
    if size > config.maximum_mb * _MB:
        message = f"the artifact has {size / _MB:.1f} MB, more than {config.maximum_mb:g} MB"
        fix = "remove training data and checkpoints from it, or ask the policy owner for a larger limit"
        findings.append(_failed("artifact-too-large", message, "", fix))
    if len(files) > config.maximum_files:
        message = f"the artifact has {len(files)} files, more than {config.maximum_files}"
        findings.append(
            _failed("too-many-files", message, "", "log the model only, not the folder around it")
        )
    if all(file.format in {"text", "python"} for file in files):
        findings.append(_failed("no-model-file", "the artifact holds no model file", "", _USE_SKOPS))
    return findings


def _failed(finding_id: str, message: str, where: str, fix: str) -> Finding:
    return Finding(id=finding_id, verdict=Verdict.FAILED, message=message, where=where, fix=fix)


def _summary(files: list[_File], findings: list[Finding]) -> str:
    if not findings:
        models = sorted({file.format for file in files} - {"text"})
        return f"All {len(files)} files are metadata or safe model formats ({', '.join(models)})."
    first = max(findings, key=lambda finding: finding.verdict is Verdict.ERROR)
    more = f", and {len(findings) - 1} more findings" if len(findings) > 1 else ""
    return f"{first.message}{more}."


def _metrics(files: list[_File], config: Config) -> list[Metric]:
    size, count = sum(file.size for file in files), len(files)
    limits = {"files": (count, config.maximum_files, "files"), "bytes": (size, config.maximum_mb * _MB, "B")}
    return [
        Metric(name=name, value=float(value), threshold=float(limit), direction="lower", unit=unit)
        for name, (value, limit, unit) in limits.items()
    ]
