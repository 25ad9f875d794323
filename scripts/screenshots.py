"""Takes the pictures of the README from a running demo, with Debian's chromium.

make demo                       # in one terminal, without --answer
python scripts/screenshots.py http://127.0.0.1:8080 .airlock/demo/airflow/passwords.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"


def log_in(page: Page, url: str, user: str, password: str) -> None:
    """Log in through the form."""
    page.goto(f"{url}/auth/login")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "login" not in address)


def waiting_run(page: Page, url: str) -> str:
    """Path of a run that waits for people."""
    answer = page.request.get(f"{url}/api/v2/dags/release__mortgage-approval/dagRuns/~/hitlDetails")
    waiting = [entry for entry in answer.json()["hitl_details"] if not entry["response_received"]]
    return str(waiting[0]["task_instance"]["dag_run_id"])


def main() -> None:
    """Take every picture."""
    url, passwords = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, device_scale_factor=1)
        log_in(page, url, "grace", passwords["grace"])
        run = waiting_run(page, url)
        base = f"{url}/dags/release__mortgage-approval"
        for name, address in (
            ("run", f"{base}/runs/{run}"),
            ("approval", f"{base}/runs/{run}/tasks/seat/mapped/0/required_actions"),
        ):
            page.goto(address)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(3000)
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
