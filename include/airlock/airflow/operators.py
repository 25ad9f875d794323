"""One operator for each step of a release. They call a service and return an id or a digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airlock.airflow.assets import tell_champion
from airlock.airflow.base import AirlockOperator
from airlock.core.interview import ANSWER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airlock.airflow.base import Recorder
    from airlock.core.evidence import Evidence


class SubmitOperator(AirlockOperator):
    """Opens the release; the submitter is who triggered the run, not who the form says."""

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the release id."""
        from airlock.services.submit import submit

        params: Any = context["params"]
        return submit(
            recorder.deployment,
            release_id=recorder.release_id,
            workload_name=recorder.ref.workload,
            version=recorder.ref.version,
            batch=str(params.get("batch") or ""),
            context=str(params.get("context") or ""),
            submitter=recorder.dag_run.triggering_user_name or "",
            dag_id=recorder.ref.dag_id,
            run_id=recorder.ref.run_id,
            answers=_answers(params),
        )


def _answers(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the trigger form asks beyond version, batch and context; a field left empty is no answer."""
    given = {name: params.get(f"{ANSWER_PREFIX}{name}") for name in _asked(params)}
    return {name: value for name, value in given.items() if value not in (None, "")}


def _asked(params: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix(ANSWER_PREFIX) for name in params if name.startswith(ANSWER_PREFIX)]


class ManifestOperator(AirlockOperator):
    """Freezes what is released and returns the manifest's digest."""

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the manifest digest."""
        from airlock.services.submit import freeze

        return freeze(recorder.deployment, recorder.release_id)


class GateOperator(AirlockOperator):
    """Runs one gate and returns the digest of its evidence; red when its failure is not waived.

    Nobody believes this task's colour: the decision reads the evidence.
    """

    ui_color = "#fff8e1"

    def __init__(self, *, gate: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = gate

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the evidence digest."""
        from airlock.services.evaluate import evaluate
        from airlock.services.score import quarantine_if_unsafe
        from airlock.services.waivers import waivers_for

        evidence = evaluate(recorder.deployment, recorder.release_id, self.gate)
        if quarantine_if_unsafe(recorder.deployment, evidence):
            self.log.warning("The version is quarantined.")
        waivers = waivers_for(recorder.deployment, evidence)
        if waivers:
            self.log.warning("It may fail: %s", ", ".join(waivers))
        return _evidence_or_red(self, evidence, waived=bool(waivers))


class ScoreOperator(AirlockOperator):
    """Scores champion and candidate once, in the sandbox."""

    ui_color = "#ede7f6"

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the evidence digest."""
        from airlock.services.score import quarantine_if_unsafe, score

        evidence = score(recorder.deployment, recorder.release_id)
        if quarantine_if_unsafe(recorder.deployment, evidence):
            self.log.warning("The version is quarantined.")
        return _evidence_or_red(self, evidence)


class ReproduceOperator(AirlockOperator):
    """Trains the candidate again, once, in the sandbox, with the workload's training command.

    Not red when the command fails: the reproducibility gate says so, and judges it.
    """

    ui_color = "#ede7f6"

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the evidence digest."""
        from airlock.services.reproduce import reproduce

        evidence = reproduce(recorder.deployment, recorder.release_id)
        self.log.info("%s: %s", evidence.verdict, evidence.result.summary)
        return evidence.digest


def _evidence_or_red(operator: AirlockOperator, evidence: Evidence, *, waived: bool = False) -> str:
    operator.log.info("%s: %s", evidence.verdict, evidence.result.summary)
    for finding in evidence.result.findings:
        operator.log.info("  %s %s", finding.verdict, finding.message)
        if finding.fix:
            operator.log.info("    how to fix it: %s", finding.fix)
    if not evidence.verdict.allows and not waived:
        raise AirflowFailException(f"{evidence.verdict}: {evidence.result.summary}")
    return evidence.digest


class DecideOperator(AirlockOperator):
    """Judges the release and returns the roles that are asked, one for each seat."""

    def run(self, recorder: Recorder, context: Context) -> list[str]:
        """Return a role for each seat; the decision itself stands in the audit store."""
        from airlock.services.decide import decide

        decision = decide(recorder.deployment, recorder.release_id)
        self.log.info(
            "%s, track %s, tier %s: %s", decision.outcome, decision.track, decision.tier, decision.sentence
        )
        for reason in decision.reasons:
            self.log.info("  %s %s: %s", "x" if reason.fired else "-", reason.rule, reason.message)
            if reason.fix:
                self.log.info("    %s", reason.fix)
        return [seat.role for seat in decision.seats]


class PromoteOperator(AirlockOperator):
    """Makes the candidate the champion, if evidence and audited approvals say so."""

    ui_color = "#e0f2f1"

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the version that is champion now."""
        from airlock.services.promote import promote

        event = promote(recorder.deployment, recorder.release_id)
        tell_champion(context, event.workload, event.version, f"release {event.release_id}")
        self.log.info("%s version %s is the champion.", event.data["model"], event.version)
        return event.version


class ChangesOperator(AirlockOperator):
    """Says which decisions the promotion changes, to the teams downstream; nothing waits for it."""

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the digest of the report."""
        from airlock.services.decision_changes import after_promotion

        event = after_promotion(recorder.deployment, recorder.release_id)
        self.log.info("%s", event.data["sentence"])
        return str(event.data["report"])


class AnnounceOperator(AirlockOperator):
    """Says how the release ended, whatever happened before."""

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the release id."""
        from airlock.services.announce import announce

        self.log.info("%s", announce(recorder.deployment, recorder.release_id))
        return recorder.release_id


class SealOperator(AirlockOperator):
    """Closes the books; red when the release could not be judged or completed."""

    def run(self, recorder: Recorder, context: Context) -> str:
        """Return the release id."""
        from airlock.core.release import State
        from airlock.services.announce import seal

        state = seal(recorder.deployment, recorder.release_id)
        if state == State.FAILED:
            raise AirflowFailException("the release could not be completed; see the failed tasks of this run")
        return recorder.release_id


class ReconcileOperator(BaseOperator):
    """Compares Airflow with the audit store, says what it found and returns how many findings.

    It is about no single release, so it records no start and outcome but the result of its comparison.
    """

    ui_color = "#e8f0fe"

    def execute(self, context: Context) -> int:
        """Append what is missing; each finding is a line of this task's log."""
        from airlock.adapters.airflow_api import service_client
        from airlock.services.deployment import open_deployment
        from airlock.services.reconcile import reconcile_all

        deployment = open_deployment()
        report = reconcile_all(deployment, service_client(deployment.settings))
        for finding in report.findings:
            self.log.warning("%s: %s", finding.found, finding.sentence)
        self.log.info(
            "Compared %d runs and looked for %d releases: %d findings",
            report.runs,
            report.releases,
            len(report.findings),
        )
        return len(report.findings)
