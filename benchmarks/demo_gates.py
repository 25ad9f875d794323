"""What all gates of the demo's larger release cost: CPU seconds beyond the import of libraries.

    python -m benchmarks.demo_gates

The release runs twice in one process, over stores that forget: the first run imports everything, the second
is measured, gate by gate. CPU time of this process and of the sandboxes that gates start; scoring is listed
and not counted, because it runs the models and judges nothing. Peak memory beside it.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from airlock.adapters.settings import Settings
from airlock.core.evidence import SCORE, Verdict
from airlock.demo import models
from airlock.demo.data import prepare
from airlock.services import rehearse as rehearsing
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.evaluate import evaluate
from airlock.services.rehearse import Rehearsal, rehearse
from airlock.services.score import score

ROOT = Path(__file__).parents[1]
LIMIT = 8.0


def cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def world(home: Path) -> tuple[Deployment, str]:
    """The demo's data, champion and candidate."""
    settings = Settings(home=home, config_dir=ROOT / "config")
    deployment = open_deployment(settings)
    deployment.audit.migrate()
    prepare(ROOT / "data/loanapp.csv", settings.data_root)
    features = deployment.config.workload(models.APPROVAL).model.features
    champion = models.register(settings, models.APPROVAL_CHAMPION, features)
    deployment.registry.set_champion(models.APPROVAL, champion, {})
    return deployment, models.register(settings, models.APPROVAL_BOOSTED, features)


def main() -> None:
    spent: dict[str, float] = {}
    verdicts: dict[str, Verdict] = {}

    def timed_gate(deployment: Deployment, release_id: str, gate: str) -> None:
        begun = cpu()
        verdicts[gate] = evaluate(deployment, release_id, gate).verdict
        spent[gate] = cpu() - begun

    def timed_score(deployment: Deployment, release_id: str) -> object:
        begun = cpu()
        result = score(deployment, release_id)
        spent[SCORE] = cpu() - begun
        return result

    rehearsing.evaluate, rehearsing.score = timed_gate, timed_score  # type: ignore[assignment,attr-defined]
    with tempfile.TemporaryDirectory(prefix="airlock-bench-") as home:
        deployment, version = world(Path(home))
        wanted = Rehearsal(workload=models.APPROVAL, version=version, context="Better ranking.")
        for _ in range(2):
            started = time.perf_counter()
            answer = rehearse(deployment, wanted)
            wall = time.perf_counter() - started
    for gate, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{gate:16} {seconds:6.2f} s CPU  {verdicts.get(gate, '')}")
    total = sum(seconds for gate, seconds in spent.items() if gate != SCORE)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"all gates        {total:6.2f} s CPU of {LIMIT:.0f}; {wall:.1f} s wall with scoring; {peak:.0f} MB"
    )
    assert spent, answer.notes


if __name__ == "__main__":
    main()
