"""CPU seconds to build the release DAGs of 500 workloads, against as many DAGs of plain no-op tasks.

    python -m benchmarks.parse_500_workloads

The peer has the same number of DAGs, tasks and edges, made of Airflow's EmptyOperator with no
configuration to read, no parameters and no texts: what any DAG generator would cost at least.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNT = 500
HEAVY = ("great_expectations", "evidently", "mlflow", "shap", "fairlearn", "sklearn", "pandas", "numpy")


def _workloads(folder: Path) -> None:
    shutil.copytree(ROOT / "config", folder / "config")
    template = (folder / "config" / "workloads" / "mortgage-approval.yaml").read_text()
    for path in (folder / "config" / "workloads").glob("*.yaml"):
        path.unlink()
    for number in range(COUNT):
        text = template.replace("name: mortgage-approval", f"name: workload-{number}", 1)
        (folder / "config" / "workloads" / f"workload-{number}.yaml").write_text(text)


def _peer(names: dict[str, list[str]]) -> list[object]:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG

    dags = []
    for number in range(COUNT):
        with DAG(dag_id=f"peer_{number}", schedule=None) as dag:
            tasks = {name: EmptyOperator(task_id=name) for name in names}
            for name, upstream in names.items():
                tasks[name].set_upstream([tasks[other] for other in upstream])
        dags.append(dag)
    return dags


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _workloads(folder)
        os.environ["AIRFLOW_HOME"] = str(folder / "airflow")
        os.environ["AIRLOCK_CONFIG_DIR"] = str(folder / "config")
        os.environ["AIRLOCK_HOME"] = str(folder / "home")
        import airflow.sdk  # noqa: F401  # both sides need it; it is not what is measured

        from airlock.airflow.dag_factory import release_dags

        start = time.process_time()
        dags = list(release_dags())
        ours = time.process_time() - start
        assert len(dags) == COUNT
        shape = {task.task_id: sorted(task.upstream_task_ids) for task in dags[0].tasks}
        assert len(shape) > 10, "the workloads of this benchmark are broken"
        start = time.process_time()
        _peer(shape)
        peer = time.process_time() - start
    loaded = [module for module in HEAVY if module in sys.modules]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"release DAGs of {COUNT} workloads, {len(shape)} tasks each: {ours:.2f} s CPU")
    print(f"the same DAGs of EmptyOperator:                {peer:.2f} s CPU, ratio {ours / peer:.2f}")
    print(f"machine-learning libraries imported: {', '.join(loaded) or 'none'}; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
