"""Retraining DAGs, one for each workload with a training command. They call a service and return an id."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, Param, TriggerRule, get_parsing_context
from airflow.sdk.exceptions import AirflowSkipException

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.settings import load_settings
from airlock.airflow.base import RequestRecorder
from airlock.airflow.requests import DEFAULTS
from airlock.core.errors import AirlockError
from airlock.core.retraining import RETRAIN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

    from airlock.core.workload import Workload


class RetrainStep(BaseOperator):
    """One step of a retraining; skipped when the retraining was closed, and says why."""

    ui_color = "#ede7f6"

    def __init__(self, *, workload: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workload = workload

    def execute(self, context: Context) -> Any:
        """Run one service; errors in words."""
        with RequestRecorder(context, "retrain") as recorder:
            done = self.run(recorder)
            if not done:
                raise AirflowSkipException(self.sentence(recorder))
            return done

    def run(self, recorder: RequestRecorder) -> Any:
        """What this operator does; the only thing a subclass writes. Nothing means: it is closed."""
        raise NotImplementedError

    @staticmethod
    def sentence(recorder: RequestRecorder) -> str:
        """Where the retraining stands."""
        from airlock.services.retrain import find_retraining

        return find_retraining(recorder.deployment, recorder.subject).sentence


class RequestRetrainingOperator(RetrainStep):
    """Opens the retraining in the name of who started the run, unless it was asked for before."""

    ui_color = "#e8f0fe"

    def run(self, recorder: RequestRecorder) -> str:
        """Return the id of the retraining."""
        from airlock.services.retrain import open_request

        return open_request(
            recorder.deployment,
            self.workload,
            params=recorder.params,
            user=recorder.user,
            dag_id=recorder.ti.dag_id,
            run_id=recorder.ti.run_id,
        )


class FreezeOperator(RetrainStep):
    """Freezes rows, code, parameters and champion by digest."""

    def run(self, recorder: RequestRecorder) -> str:
        """Return the digest of the plan."""
        from airlock.services.retrain_data import freeze

        return freeze(recorder.deployment, recorder.subject)


class CheckOperator(RetrainStep):
    """Judges the rows with the data quality gate."""

    def run(self, recorder: RequestRecorder) -> bool:
        """Return whether they may be trained on."""
        from airlock.services.retrain_data import check

        return check(recorder.deployment, recorder.subject)


class TrainOperator(RetrainStep):
    """Runs the training command in the sandbox."""

    def run(self, recorder: RequestRecorder) -> bool:
        """Return whether there is a model."""
        from airlock.services.retrain_model import train_version

        return train_version(recorder.deployment, recorder.subject)


class CompareOperator(RetrainStep):
    """Compares the model with the champion on rows that were kept from training."""

    def run(self, recorder: RequestRecorder) -> bool:
        """Return whether it is better."""
        from airlock.services.retrain_model import compare

        return compare(recorder.deployment, recorder.subject)


class RegisterOperator(RetrainStep):
    """Registers the model in MLflow with its lineage."""

    def run(self, recorder: RequestRecorder) -> str:
        """Return its version."""
        from airlock.services.retrain_model import register

        return register(recorder.deployment, recorder.subject)


class SubmitRetrainedOperator(RetrainStep):
    """Submits the version as a release like any other."""

    ui_color = "#e0f2f1"

    def run(self, recorder: RequestRecorder) -> str:
        """Return the id of the release."""
        from airlock.services.retrain_model import submit_release

        return submit_release(recorder.deployment, recorder.subject)


class SayRetrainingOperator(RetrainStep):
    """Says how the retraining ended, whatever happened before."""

    ui_color = "#e8f0fe"

    def run(self, recorder: RequestRecorder) -> str:
        """Return the id of the retraining."""
        self.log.info("%s: %s", recorder.subject, self.sentence(recorder))
        return recorder.subject


def retrain_dags() -> Iterator[DAG]:
    """Every retraining DAG; only the one that is asked for when a task is about to run.

    A workload file that cannot be used has a release DAG that says why, and none here.
    """
    wanted = get_parsing_context().dag_id
    folder = ConfigFolder(load_settings().config_dir)
    for path in folder.workload_files():
        if wanted and wanted != f"{RETRAIN_PREFIX}{path.stem}":
            continue
        try:
            workload = folder.load_workload(path)
        except AirlockError:
            continue
        if workload.training.command:
            yield retrain_dag(workload)


def retrain_dag(workload: Workload) -> DAG:
    """The retraining DAG of one workload."""
    with DAG(
        dag_id=f"{RETRAIN_PREFIX}{workload.name}",
        dag_display_name=f"Retrain: {workload.title}",
        description=f"Trains {workload.title} again and submits what is better as a release",
        doc_md=_text(workload),
        schedule=None,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args={**DEFAULTS, "owner": workload.owner},
        params=_params(),
        tags={"airlock", "retrain", workload.kind, workload.owner},
    ) as dag:
        steps = [
            kind(task_id=name, workload=workload.name, doc_md=(kind.__doc__ or "").strip())
            for name, kind in _STEPS.items()
        ]
        for before, after in pairwise(steps):
            before >> after
        said = SayRetrainingOperator(
            task_id="ended",
            workload=workload.name,
            doc_md="Says how it ended.",
            trigger_rule=TriggerRule.ALL_DONE,
        )
        steps[-1] >> said
    return dag


_STEPS: dict[str, type[RetrainStep]] = {
    "request": RequestRetrainingOperator,
    "freeze": FreezeOperator,
    "check": CheckOperator,
    "train": TrainOperator,
    "compare": CompareOperator,
    "register": RegisterOperator,
    "submit": SubmitRetrainedOperator,
}


def _params() -> dict[str, Param]:
    def text(title: str, description: str, **schema: Any) -> Param:
        return Param(default="", type="string", title=title, description=description, **schema)

    return {
        "reason": Param(
            default="",
            type="string",
            title="Reason",
            description="Why it is trained again, for those who are asked about the release",
            format="multiline",
            maxLength=4000,
        ),
        "start": text(
            "From", "First day or time of the production log, such as 2026-01-05; UTC", maxLength=40
        ),
        "end": text("To", "Day or time after the last, such as 2026-02-02; not included", maxLength=40),
        "file": text("File", "Parquet file inside the data directory, instead of the log", maxLength=1000),
        "incident": text("Incident", "Filled in by Airlock when an incident asks", maxLength=200),
    }


def _text(workload: Workload) -> str:
    return (
        f"# Retrain: {workload.title}\n\n"
        "Trains the workload again and submits what is better as a release, which goes through all gates and "
        "approvals. Rows, code and parameters are frozen by digest first; the rows are judged by the data "
        "quality gate; the command runs in a sandbox without network. What fails, or is not better than the "
        "champion on rows that were kept from training, is closed with its reasons: nothing is released.\n\n"
        "Without dates and file it is trained on the pinned training data.\n\n"
        f"Owner: **{workload.owner}**, command `{' '.join(workload.training.command)}`.\n"
    )
