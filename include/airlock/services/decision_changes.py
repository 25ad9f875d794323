"""Which decisions a promotion or a rollback changes, and why; sent to the teams downstream (R-4).

It is computed beside the move and never holds it up: a promotion has its scores already, a rollback is scored
afterwards. What cannot be compared is said, never guessed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airlock.adapters.evidence import hash_file
from airlock.adapters.production_log import ProductionLog
from airlock.core.audit import Event, Kind
from airlock.core.canonical import canonical_json, parse_json, storable
from airlock.core.columns import label_text
from airlock.core.errors import AirlockError, NotFoundError, SandboxError, UnavailableError
from airlock.core.evidence import SCORE, Evidence
from airlock.core.logged import LABEL
from airlock.core.manifest import ArtifactRef
from airlock.core.policy import Policy
from airlock.core.workload import Workload
from airlock.profiles.flips import flips
from airlock.profiles.why_flipped import examples, reasons
from airlock.reporting.decision_changes import fragment, sentence
from airlock.services.deployment import Deployment
from airlock.services.gate_files import coded
from airlock.services.moves import arrived, moves_of
from airlock.services.releases import find_release, open_case, read_evidence
from airlock.services.score import SCORES, SHAP, score_rows
from airlock.services.submit import batch_file, snapshot

if TYPE_CHECKING:
    import pandas as pd

ROWS = 100_000
"""Newest cases of production that are compared; the whole evaluation batch always is."""


@dataclass(frozen=True)
class Pair:
    """The version that decided before, and the one that decides now."""

    deployment: Deployment
    workload: Workload
    policy: Policy
    before: str
    after: str


@dataclass(frozen=True)
class Scored:
    """Both models on the same cases; ``champion`` decided before, ``candidate`` decides now.

    Attributes:
        frame: the cases.
        scores: what both say, in the columns of ``scores.parquet``.
        explained: SHAP values of the first cases by both; ``None`` where one was not explained.
        target: column with the true outcome, where it is known.
    """

    name: str
    frame: pd.DataFrame
    scores: pd.DataFrame
    explained: tuple[pd.DataFrame, pd.DataFrame] | None
    target: str


def after_promotion(deployment: Deployment, release_id: str) -> Event:
    """Compare what a promoted release decides with what the version before it decided. Safe to repeat.

    Raises:
        NotFoundError: unknown release, or it was not promoted.
        UnavailableError: a store does not answer.
    """
    finished = find_release(deployment, release_id).first(Kind.PROMOTION_FINISHED)
    if finished is None:
        raise NotFoundError(f"release {release_id} was not promoted", fix="see `airlock release show`")
    return _compare(deployment, finished)


def after_rollback(deployment: Deployment, finished: Event) -> Event:
    """Compare what decides after a rollback with what decided before it. Safe to repeat.

    Raises:
        UnavailableError: a store or the registry does not answer.
    """
    return _compare(deployment, finished)


def after_last_rollback(deployment: Deployment, workload: str) -> Event:
    """The same for the newest rollback of a workload.

    Raises:
        NotFoundError: it was never rolled back.
    """
    done = [one for one in moves_of(deployment, workload).arrivals if one.kind is Kind.ROLLBACK_FINISHED]
    if not done:
        raise NotFoundError(f"{workload} was never rolled back", fix="see `airlock audit production`")
    return after_rollback(deployment, done[-1])


def report_of(deployment: Deployment, compared: Event) -> dict[str, Any]:
    """The report behind a ``decisions.compared`` event."""
    found: dict[str, Any] = parse_json(deployment.evidence.get(str(compared.data["report"])))
    return found


def _compare(deployment: Deployment, move: Event) -> Event:
    kind: Literal["promotion", "rollback"] = (
        "promotion" if move.kind is Kind.PROMOTION_FINISHED else "rollback"
    )
    key = f"decisions/{kind}/{move.release_id if kind == 'promotion' else move.data['move']}/{move.workload}"
    if (earlier := deployment.find(key)) is not None:
        return earlier
    workload = deployment.config.workload(move.workload)
    # Read back as it is stored: whoever renders the stored report gets the same page.
    stored = canonical_json(_report(deployment, workload, move, kind))
    report: dict[str, Any] = parse_json(stored)
    data = {
        "kind": kind,
        "from": report["from"],
        "to": report["to"],
        "report": deployment.evidence.put(stored),
        "page": deployment.evidence.put(fragment(report).encode()),
        "sentence": sentence(report)[:1000],
        "cases": sum(one["flips"]["rows"] for one in report["data"]),
        "changed": sum(one["flips"]["changed"] for one in report["data"]),
        "downstream": workload.downstream,
        "incident": str(move.data.get("incident", "")),
    }
    return deployment.record(
        Kind.DECISIONS_COMPARED,
        key,
        release_id=move.release_id,
        workload=move.workload,
        version=arrived(move),
        data=data,
    ).event


def _report(deployment: Deployment, workload: Workload, move: Event, kind: str) -> dict[str, Any]:
    before, after = str(move.data.get("previous") or ""), arrived(move)
    report: dict[str, Any] = {
        "schema_version": 1,
        "workload": workload.name,
        "kind": kind,
        "from": before,
        "to": after,
        "problem": "",
        "data": [],
    }
    if not before or not after:
        return {**report, "problem": "there is no other version to compare with"}
    pair = Pair(deployment, workload, deployment.config.policy(workload.policy), before, after)
    problems = []
    for probe in (_on_evaluation, _on_production):
        try:
            scored = probe(pair)
        except UnavailableError:
            raise
        except AirlockError as error:
            problems.append(storable(error.what))
            continue
        if scored is not None:
            report["data"].append(compared(workload, scored))
    return {**report, "problem": "; ".join(problems)[:2000]}


def compared(workload: Workload, scored: Scored) -> dict[str, Any]:
    """What a report says about one set of cases: which decisions change, why, and examples, as plain data."""
    model = workload.model
    found = flips(
        scored.frame,
        scored.scores,
        task=model.task,
        features=model.features,
        target=scored.target,
        sensitive=workload.data.sensitive,
    )
    hidden = {*workload.data.sensitive, *workload.data.identifiers}
    told = [name for name in model.features if name not in hidden]
    old = scored.scores["champion_prediction"].to_numpy()
    new = scored.scores["candidate_prediction"].to_numpy()
    return {
        "name": scored.name,
        "flips": found,
        "reasons": reasons(scored.explained, old, new),
        "examples": examples(scored.frame, told, scored.explained, old, new),
    }


# Where the scores come from


def _on_evaluation(pair: Pair) -> Scored:
    """The evaluation data: as a release scored both versions, or scored now where none did."""
    for candidate, champion in ((pair.after, pair.before), (pair.before, pair.after)):
        found = _scored_release(pair, candidate, champion)
        if found is not None:
            return found if candidate == pair.after else _swapped(found)
    batch = pair.workload.data.default_batch
    path = batch_file(pair.deployment, pair.workload, batch)
    return _score_now(pair, f"evaluation batch {batch}", path, _labelled(pair.workload, path))


def _scored_release(pair: Pair, candidate: str, champion: str) -> Scored | None:
    """The scores of a release that compared exactly these two versions; ``None`` where there is none."""
    for event in reversed(moves_of(pair.deployment, pair.workload.name).arrivals):
        if event.kind is not Kind.PROMOTION_FINISHED or event.version != candidate:
            continue
        case = open_case(pair.deployment, event.release_id)
        record = read_evidence(pair.deployment, case).get(SCORE)
        path, judged = Path(case.manifest.evaluation.path), case.manifest.champion
        if record is None or judged is None or judged.version != champion:
            continue
        # Of another batch by the same name the scores could not be told apart by their rows.
        same = path.is_file() and hash_file(path) == case.manifest.evaluation.sha256
        if same and "scores.parquet" in record.result.files:
            tables = [_table(pair.deployment, record, name) for name in ("champion_shap", "shap")]
            return Scored(
                name=f"evaluation batch {case.release.batch}",
                frame=_labelled(pair.workload, path),
                scores=_stored(pair.deployment, record, "scores.parquet"),
                explained=_both(*tables),
                target=pair.workload.model.target,
            )
    return None


def _stored(deployment: Deployment, record: Evidence, name: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(BytesIO(deployment.evidence.get(record.result.files[name])))


def _table(deployment: Deployment, record: Evidence, name: str) -> pd.DataFrame | None:
    file = f"{name}.parquet"
    return _stored(deployment, record, file) if file in record.result.files else None


def _both(
    before: pd.DataFrame | None, after: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    return None if before is None or after is None else (before, after)


def _swapped(found: Scored) -> Scored:
    """The same cases with before and now changed round."""
    other = {"candidate": "champion", "champion": "candidate"}
    names = {}
    for name in found.scores.columns:
        role, _, rest = str(name).partition("_")
        names[name] = f"{other[role]}_{rest}"
    explained = None if found.explained is None else found.explained[::-1]
    return replace(found, scores=found.scores.rename(columns=names), explained=explained)


def _on_production(pair: Pair) -> Scored | None:
    """The newest window of the production log; ``None`` where the workload has none or it is empty."""
    spec = pair.workload.monitoring
    if spec is None:
        return None
    now = pair.deployment.clock.now_us()
    log = ProductionLog(pair.workload, pair.deployment.settings.data_root)
    window = spec.window_before(log.ends_us() or now)
    with tempfile.TemporaryDirectory(prefix="airlock-changes-") as name:
        path = Path(name) / "window.parquet"
        if not log.read(window, path, now_us=now).rows:
            return None
        frame = _read(path).tail(ROWS).reset_index(drop=True)
        frame.to_parquet(path, index=False)
        found = _score_now(pair, f"production {window.text}", path, frame)
        return replace(found, target=LABEL)


def _labelled(workload: Workload, path: Path) -> pd.DataFrame:
    """The rows of a file; of two outcomes 1 is the favourable one, whatever the data calls it."""
    frame, model = _read(path), workload.model
    if model.task != "classification" or model.positive is None or model.target not in frame:
        return frame
    return frame.assign(**{model.target: coded(frame[model.target], label_text(model.positive))})


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


def _score_now(pair: Pair, name: str, path: Path, frame: pd.DataFrame) -> Scored:
    """Let both versions score the same cases, each in a sandbox of its own."""
    import pandas as pd

    with tempfile.TemporaryDirectory(prefix="airlock-changes-") as folder, ThreadPoolExecutor(2) as pool:
        running = {
            role: pool.submit(_score_one, pair, version, Path(folder) / role, path)
            for role, version in (("champion", pair.before), ("candidate", pair.after))
        }
        outputs = {role: future.result() for role, future in running.items()}
        scores = [_said(role, files[SCORES], len(frame)) for role, files in outputs.items()]
        tables = [pd.read_parquet(files[SHAP]) if SHAP in files else None for files in outputs.values()]
    return Scored(name, frame, pd.concat(scores, axis=1), _both(*tables), pair.workload.model.target)


def _said(role: str, path: Path, rows: int) -> pd.DataFrame:
    """What a model said; it comes out of the sandbox, so its shape is checked before anything reads it."""
    import pandas as pd

    scores = pd.read_parquet(path)
    if len(scores) != rows or not {"candidate_score", "candidate_prediction"} <= set(scores.columns):
        raise SandboxError(f"the sandbox wrote {len(scores)} rows of scores for {rows} cases")
    return scores.rename(columns=lambda column: str(column).replace("candidate", role, 1))


def _score_one(pair: Pair, version: str, folder: Path, path: Path) -> dict[str, Path]:
    # Both are scored as candidates, each in a sandbox of its own, and compared outside.
    folder.mkdir()
    return score_rows(
        pair.deployment,
        pair.workload,
        pair.policy,
        _artifact(pair, version),
        rows=path,
        background=pair.deployment.settings.data_root / pair.workload.data.training,
        folder=folder,
    )


def _artifact(pair: Pair, version: str) -> ArtifactRef:
    """A version's files: as they were released, else as the registry has them."""
    release_id = moves_of(pair.deployment, pair.workload.name).release_of(version)
    if release_id:
        return open_case(pair.deployment, release_id).manifest.candidate
    return snapshot(pair.deployment, pair.workload.model.registered_model, version)


def compared_events(deployment: Deployment, workload: str) -> Iterator[Event]:
    """What was compared of a workload, the newest first."""
    found = deployment.audit.events(workload=workload, kinds=[Kind.DECISIONS_COMPARED], newest_first=True)
    yield from (entry.event for entry in found if entry.event.deployment == deployment.settings.deployment)
