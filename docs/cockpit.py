"""Makes the pictures of docs/cockpit.md: `python -m docs.cockpit --where home`, with the Airflow that `make demo` left running there.

For `rate`, the newest run of `align` needs a round: the DAG `feedback` opens one.
Each is a screenshot of a page as Chromium shows it, 1280 pixels wide, with few enough colours that a picture is a small file.
"""

import argparse
import base64
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from contract.errors import GristmillError
from demo import server
from demo.rest import Airflow
from gristmill_airflow.cockpit import PREFIX
from gristmill_airflow.environment import token

FOLDER = Path(__file__).parent / "cockpit"
CHROMIUM = "/usr/bin/chromium"
WIDTH = 1280
MOST_BYTES = 150_000
LEVELS = (32, 24, 16, 12, 8)  # of each of red, green and blue; as many as a picture of MOST_BYTES can have
DRAWN = """() => {
  const seen = (one) => one.getBoundingClientRect().top < innerHeight && one.getBoundingClientRect().bottom > 0;
  return document.readyState === "complete"
    && [...document.querySelectorAll(".chart")].every((one) => one.hidden || !seen(one) || one.querySelector(".main-svg"))
    && [...document.querySelectorAll("[data-points]")].every((one) => one.querySelector(".main-svg"));
}"""
"""Every chart in view stands; the page of a training task draws the others when a reader comes to them."""
FEWER = """async ([source, levels]) => {
  const picture = new Image();
  picture.src = source;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const held = context.getImageData(0, 0, canvas.width, canvas.height);
  const step = 255 / (levels - 1);
  for (let at = 0; at < held.data.length; at++) if (at % 4 !== 3) held.data[at] = Math.round(Math.round(held.data[at] / step) * step);
  context.putImageData(held, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""


@dataclass(frozen=True)
class Shot:
    """A picture: its name, the page, and its height in pixels. within: inside Airflow's own page.

    click: what to open first. at: what stands at the top of the picture.
    """

    name: str
    address: str
    height: int = 900
    within: bool = False
    dark: bool = False
    click: str = ""
    at: str = ""


def shots(runs: dict[str, str]) -> list[Shot]:
    """What is shown. runs: DAG -> the id of its run."""
    corpus, pretrain, align, evaluate = (runs[dag] for dag in ("corpus", "pretrain", "align", "evaluate"))
    return [
        Shot("home", "/", 900, within=True),
        Shot("run-in-airflow", f"/dags/corpus/runs/{corpus}/plugin/gristmill-run", 900, within=True),
        Shot("run", f"/run/corpus/{corpus}", 1250),
        Shot("pages", f"/pages/corpus/{corpus}", 800),
        Shot("document", f"/pages/corpus/{corpus}?stage=filter", 1000, click="tbody a"),
        Shot("thresholds", f"/pages/corpus/{corpus}/thresholds", 900),
        Shot("training", f"/training/pretrain/{pretrain}/pretrain", 1000, dark=True),
        Shot("gate", f"/training/align/{align}/gate", 1000),
        Shot("models", f"/models/evaluate/{evaluate}", 1000, at="h2:has-text('Abilities')"),
        Shot("lineage", f"/models/align/{align}/ppo", 900, at="h2:has-text('Lineage')"),
        Shot("rate", f"/rate/align/{align}", 1000),
        Shot(
            "new-run",
            f"/new?from_dag=corpus&from_run={corpus}",
            1000,
            click="text=Show what the run would do",
            at="text=Overrides",
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.cockpit", description=__doc__)
    parser.add_argument("--where", type=Path, default=Path("home"), help="the folder of the demo")
    parser.add_argument("--only", nargs="+", default=[], help="names of pictures")
    given = parser.parse_args()
    running = server.find(given.where.resolve())
    if running is None:
        raise GristmillError(f"no demo runs in {given.where}; start one with: make demo WHERE={given.where}")
    bearer = token(running.home, running.port)
    runs = newest(Airflow(running.url, lambda: bearer))
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for shot in shots(runs):
            if not given.only or shot.name in given.only:
                size = take(browser, running.url, bearer, shot)
                print(f"{shot.name}: {size:,} bytes")
        browser.close()
    return 0


def newest(airflow: Airflow) -> dict[str, str]:
    """DAG -> its newest run that ended well."""
    asked = {"state": "success", "order_by": "-run_after", "limit": 1}
    rows = {
        dag: airflow.call("GET", f"dags/{dag}/dagRuns", **asked)["dag_runs"]
        for dag in ("corpus", "pretrain", "align", "evaluate")
    }
    if missing := [dag for dag, found in rows.items() if not found]:
        raise GristmillError(f"no run of {', '.join(missing)} has ended well; wait for the demo")
    return {dag: str(found[0]["dag_run_id"]) for dag, found in rows.items()}


def take(browser: Browser, url: str, bearer: str, shot: Shot) -> int:
    """Write one picture and return its bytes."""
    scheme = "dark" if shot.dark else "light"
    context = browser.new_context(viewport={"width": WIDTH, "height": shot.height}, color_scheme=scheme)
    context.add_cookies([{"name": "_token", "value": bearer, "url": url}])
    page = context.new_page()
    page.goto(f"{url}{'' if shot.within else PREFIX}{shot.address}")
    if shot.within:
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(2000)  # Airflow's own charts move into place
    if shot.click:
        page.locator(shot.click).first.click()
        page.wait_for_load_state("load")
    if shot.at:
        page.locator(shot.at).first.evaluate("(one) => one.scrollIntoView()")
    page.wait_for_function(DRAWN)
    data = smaller(page.context.new_page(), page.screenshot(type="png"))
    (FOLDER / f"{shot.name}.png").write_bytes(data)
    context.close()
    return len(data)


def smaller(page: Page, picture: bytes) -> bytes:
    """The picture with as many colours as MOST_BYTES allow: few levels compress well, and charts have few colours."""
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    for levels in LEVELS:
        made = base64.b64decode(page.evaluate(FEWER, [source, levels]))
        if len(made) <= MOST_BYTES:
            break
    return min(made, picture, key=len)


if __name__ == "__main__":
    sys.exit(main())
