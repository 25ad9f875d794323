"""Release DAGs, one for each file in ``config/workloads/``."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, TriggerRule, get_parsing_context
from airflow.sdk.definitions.param import ParamsDict

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.settings import load_settings
from airlock.airflow.approval import ApprovalSensor, seats
from airlock.airflow.assets import champion_asset
from airlock.airflow.base import AirlockOperator
from airlock.airflow.operators import (
    AnnounceOperator,
    ChangesOperator,
    DecideOperator,
    GateOperator,
    ManifestOperator,
    PromoteOperator,
    ReconcileOperator,
    ReproduceOperator,
    ScoreOperator,
    SealOperator,
    SubmitOperator,
)
from airlock.airflow.refs import DAG_PREFIX
from airlock.core.errors import AirlockError, ConfigurationError
from airlock.core.interview import ANSWER_PREFIX, MAX_TEXT
from airlock.gates import gate_text, load_gate
from airlock.gates.base import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airlock.core.interview import Question
    from airlock.core.policy import Policy
    from airlock.core.workload import Workload

log = logging.getLogger(__name__)

RECONCILE_DAG = "airlock__reconcile"
REPRODUCED = "reproducibility"
"""The gate that compares the candidate with itself, trained again."""

_DEFAULTS: dict[str, Any] = {
    # MLflow, the database or a worker may be away for a moment; what was judged is never retried.
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
}


def release_dags() -> Iterator[DAG]:
    """Every release DAG; only the one that is asked for when a task is about to run.

    A workload file that cannot be read becomes a DAG that says why, so that one typo does not take
    the others down and does not go unseen either.
    """
    wanted = get_parsing_context().dag_id
    folder = ConfigFolder(load_settings().config_dir)
    policies: dict[str, Policy] = {}
    for path in folder.workload_files():
        if wanted and wanted != _dag_id(path):
            continue
        try:
            workload = folder.load_workload(path)
            if workload.policy not in policies:
                policies[workload.policy] = folder.policy(workload.policy)
            yield release_dag(workload, policies[workload.policy])
        except AirlockError as error:
            log.error("Workload %s cannot be used: %s", path.stem, error)  # noqa: TRY400  # the words suffice
            yield _broken_dag(path, error)


def _dag_id(path: Path) -> str:
    # The name of a file that cannot be used may hold what Airflow refuses in an id.
    return DAG_PREFIX + re.sub(r"[^\w.-]+", "-", path.stem, flags=re.ASCII)[:200]


def release_dag(workload: Workload, policy: Policy) -> DAG:
    """The release DAG of one workload."""
    with DAG(
        dag_id=workload.dag_id,
        dag_display_name=f"Release: {workload.title}",
        description=f"Governs every release of {workload.title}",
        doc_md=_dag_text(workload, policy),
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        default_args={**_DEFAULTS, "owner": workload.owner},
        tags={"airlock", "release", workload.kind, workload.owner},
    ) as dag:
        _tasks(policy, workload)
    # Set afterwards: Airflow copies a DAG's parameters into each of its tasks as they are made, which
    # costs a third of parsing, and gives a task that runs the DAG's parameters anyway.
    dag.params = ParamsDict(_params(workload, policy))
    return dag


def _params(workload: Workload, policy: Policy) -> dict[str, Param]:
    return {
        "version": Param(
            type="string",
            pattern=r"^[1-9][0-9]{0,8}$",
            title="Model version",
            description=f"Version of {workload.model.registered_model} in the MLflow registry, for example 3",
        ),
        "batch": Param(
            default=workload.data.default_batch,
            type="string",
            pattern=r"^[a-z][a-z0-9-]{0,59}$",
            title="Evaluation batch",
            description=f"Which batch in {workload.data.evaluation} it is judged on",
        ),
        "context": Param(
            default="",
            type="string",
            maxLength=20000,
            format="multiline",
            title="Business context",
            description="Why this release: what it improves, for whom, what was tried",
        ),
        **{f"{ANSWER_PREFIX}{question.id}": _question(question) for question in policy.interview},
    }


_TYPES = {"yes_no": "boolean", "number": "number", "text": "string", "choice": "string"}


def _question(question: Question) -> Param:
    """A question of the interview as a field of the trigger form; left empty it is not answered."""
    values: dict[str, Any] = {"type": ["null", _TYPES[question.type]], "title": question.text}
    if question.type == "text":
        values |= {"format": "multiline", "maxLength": MAX_TEXT}
    if question.type == "choice":
        values["enum"] = [*question.choices, None]
    return Param(default=None, description=f"Why it is asked: {question.why}", **values)


def _tasks(policy: Policy, workload: Workload) -> None:
    submit = SubmitOperator(task_id="submit", doc_md="Opens the release in the name of who triggered it.")
    manifest = ManifestOperator(task_id="manifest", doc_md="Freezes artifact, data and policy by digest.")
    with TaskGroup("checks", tooltip="On files and data alone, before any model is loaded") as checks:
        _gates(policy, Stage.BEFORE_SCORING)
    score = ScoreOperator(task_id="score", doc_md="Runs champion and candidate once, in the sandbox.")
    with TaskGroup("gates", tooltip="On the scores of both models") as gates:
        _gates(policy, Stage.AFTER_SCORING)
    decide = DecideOperator(
        task_id="decide",
        doc_md="Computes track, risk tier and decision from the evidence, with every reason.",
        trigger_rule=TriggerRule.ALL_DONE,
    )
    approval = ApprovalSensor(task_id="approval", doc_md="Waits for the quorum in the audit store.")
    promote = PromoteOperator(
        task_id="promote",
        doc_md="Moves the champion alias, if everything holds.",
        outlets=[champion_asset(workload.name)],
    )
    changes = ChangesOperator(
        task_id="changes", doc_md="Says which decisions change, to the teams downstream."
    )
    # How it ended is said and recorded whatever happened before.
    always = TriggerRule.ALL_DONE
    announce = AnnounceOperator(
        task_id="announce", doc_md="Says how it ended and how to fix it.", trigger_rule=always
    )
    seal = SealOperator(
        task_id="seal", doc_md="Records the final state with all digests.", trigger_rule=always
    )
    submit >> manifest >> checks >> score >> gates >> decide >> [seats(decide.output), approval]
    approval >> promote >> [announce, changes]
    # The seal is the only end of a run, or a release that people rejected would be a run that failed.
    [announce, changes] >> seal
    if workload.training.command and REPRODUCED in policy.gates:
        again = ReproduceOperator(
            task_id="retrain", doc_md="Trains the candidate again in the sandbox, beside the other checks."
        )
        checks >> again >> gates.children[f"gates.{REPRODUCED}"]


def _gates(policy: Policy, stage: Stage) -> None:
    for gate in policy.gates:
        if load_gate(gate).STAGE is stage:
            GateOperator(task_id=gate, gate=gate, doc_md=_gate_doc(gate))


@cache
def _gate_doc(gate: str) -> str:
    text = gate_text(gate)
    return (
        f"**{text.title}**\n\n**Why it matters:** {text.why}\n\n"
        f"**What good looks like:** {text.good}\n\n**How to fix it:** {text.fix}"
    )


def _dag_text(workload: Workload, policy: Policy) -> str:
    gates = "\n".join(f"| `{gate}` | {gate_text(gate).title} |" for gate in policy.gates)
    seats = "\n".join(
        f"| {track} | {', '.join(seat.role for seat in asked) or 'nobody: it goes to production by itself'} |"
        for track, asked in policy.approval.seats.items()
    )
    return (
        f"# {workload.title}\n\n{workload.description}\n\n"
        f"Owner: **{workload.owner}**, policy **{policy.version}**, "
        f"model **{workload.model.registered_model}**.\n\n"
        f"| gate | what it checks |\n|---|---|\n{gates}\n\n| track | who approves |\n|---|---|\n{seats}\n"
    )


class BrokenWorkloadOperator(AirlockOperator):
    """Stands in for a workload whose file cannot be used, and says why."""

    def __init__(self, *, problem: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.problem = problem

    def run(self, recorder: Any, context: Any) -> None:
        """Fail with the reason."""
        raise ConfigurationError(self.problem)


def _broken_dag(path: Path, error: AirlockError) -> DAG:
    with DAG(
        dag_id=_dag_id(path),
        description=f"Cannot be used: {error}"[:500],
        doc_md=f"# This workload cannot be used\n\n{error}",
        schedule=None,
        tags={"airlock", "broken"},
    ) as dag:
        BrokenWorkloadOperator(task_id="submit", problem=str(error), retries=0)
    return dag


_RECONCILE_TEXT = """# Reconciliation

Every hour Airflow is compared with the audit store. What the store does not have is appended:

- the outcome of each try of each task of Airlock's DAGs, for example of one that was killed;
- what people did by hand: marked, cleared, changed an XCom, paused a DAG, used a command;
- releases whose run was deleted from Airflow, and runs the store knew nothing of.

Each finding is a line in the log of the task `reconcile`; how many there were is its return value. A run
without findings means that the two agree. The result itself is recorded as `audit.reconciled`.
"""


def reconcile_dag() -> DAG:
    """The DAG that compares Airflow with the audit store every hour."""
    with DAG(
        dag_id=RECONCILE_DAG,
        dag_display_name="Airlock: reconciliation",
        description="Compares Airflow with the audit store and appends what is missing",
        doc_md=_RECONCILE_TEXT,
        # Not at once on the first start, when there is nothing to compare and everything else starts too.
        schedule=CronTriggerTimetable("0 * * * *", timezone="UTC", run_immediately=timedelta()),
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args={**_DEFAULTS, "owner": "airlock"},
        tags={"airlock", "audit"},
    ) as dag:
        ReconcileOperator(task_id="reconcile", doc_md="Each finding is a line in the log of this task.")
    return dag
