"""The charts of the page "Training" in a real browser: drawn, smoothed, compared, and followed while a task runs."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright

from contract.kinds import Kind
from contract.live import ALL_STEPS, LEFT_S, points_name
from contract.manifest import Attempt, File, find
from contract.metrics import Point, dump_points
from contract.plan import Run
from contract.results import Pretrain
from contract.thinning import dump_curves, thin
from reports.cockpit.pages import training

CHROMIUM = "/usr/bin/chromium"
HOSTILE = '<img src=x onerror="window.hurt=1"><b>\'&'

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed")


def points(first: int, last: int, *names: str) -> list[Point]:
    return [Point(step, name, 5.0 - step / 10, 100.0 + step) for step in range(first, last) for name in names]


def commit(run: Run, shown: list[Point]) -> None:
    attempt = Attempt(run, run.task("pretrain"))
    data = dump_curves(thin(shown))
    run.store.write_bytes(attempt.path("curves.json"), data)
    file = File(path=attempt.path("curves.json"), kind=Kind.CURVES, bytes=len(data))
    attempt.commit([file], result=Pretrain.model_construct())


@pytest.fixture
def address(visit: Any) -> Iterator[str]:
    """The cockpit of `visit`, served to a browser."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(visit.client.app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/training/runs"
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page that fails the test if its scripts raise or the browser refuses something."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 390, "height": 900})
        wrong: list[str] = []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        yield opened
        browser.close()
        assert wrong == []


def test_curves_are_drawn_smoothed_and_compared(address: str, page: Page, judged: Run) -> None:
    commit(judged, [*points(1, 31, "loss", "lr", f"heldout_loss/{HOSTILE}"), Point(9, "resumed", 1.0, 0.0)])
    for name in ("recipe.yaml", "inputs.json"):
        judged.store.write_bytes(f"runs/two/{name}", judged.store.read_bytes(f"runs/one/{name}"))
    page.goto(f"{address}/one/pretrain")
    page.wait_for_selector("#charts .main-svg")
    drawn = "() => document.querySelector('#charts .chart').data.map(one => [one.name, one.y[0], one.y.length])"
    assert page.evaluate(drawn) == [["loss", 4.9, 30]]
    assert page.evaluate("() => document.querySelector('#charts .chart').layout.shapes.map(one => one.x0)") == [9]
    assert page.inner_text("#marks") == "resumed at step 9"
    assert [row.split("\t")[:3] for row in page.inner_text("#lines").splitlines()] == [
        ["loss", "4.9", "2"],
        ["lr", "4.9", "2"],
        [f"heldout_loss/{HOSTILE}", "4.9", "2"],
    ]
    # Worked by hand: 0.5, 1.25 and 2.125 over 0.5, 0.75 and 0.875.
    assert page.evaluate("training.smoothed([1, 2, 3], 0.5)") == pytest.approx([1, 5 / 3, 17 / 7])
    page.fill("#smoothing", "0.5")
    assert len(page.evaluate(drawn)) == 2, "the curve itself stays, faint"
    page.check("#logarithmic")
    assert page.evaluate("() => document.querySelector('#charts .chart').layout.yaxis.type") == "log"
    page.fill("#smoothing", "0")
    page.select_option("#others", label="runs two")
    page.wait_for_selector("#alone:visible")
    assert [name for name, *_ in page.evaluate(drawn)] == ["loss · one", "loss · runs two"]
    page.click("#alone")
    assert len(page.evaluate(drawn)) == 1
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("document.querySelectorAll('#charts .main-svg').length >= 3")
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "a phone does not scroll sideways"


def test_a_running_task_is_followed_until_it_is_done(
    address: str, page: Page, judged: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(training.NEXT_S, "running", 0.1)
    folder = f"{judged.task('pretrain').prefix}/attempt-aa"
    judged.store.write_bytes(f"{folder}/{points_name(0)}", dump_points(points(1, 4, "loss")))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/points" in request.url else None)
    page.goto(f"{address}/one")
    page.wait_for_selector("#charts .main-svg")
    assert "Running" in page.inner_text("#state")
    steps = "(last) => document.querySelector('#charts .chart').data?.[0].x.at(-1) === last"
    page.wait_for_function(steps, arg=3)
    judged.store.write_bytes(f"{folder}/{points_name(1)}", dump_points(points(4, 8, "loss", "lr")))
    page.wait_for_function(steps, arg=7)
    page.wait_for_function("document.querySelectorAll('#charts .chart').length === 2")
    assert any("attempt=attempt-aa&number=0" in one for one in asked), "only new points are asked for"
    commit(judged, points(1, 12, "loss", "lr"))
    page.wait_for_function(steps, arg=11)
    assert page.inner_text("#state").startswith("Done. Finished")
    before = len(asked)
    page.wait_for_timeout(500)
    assert len(asked) == before


def test_texts_of_a_chart_are_no_markup(address: str, page: Page, judged: Run) -> None:
    commit(judged, points(1, 4, "loss"))
    page.goto(f"{address}/one/pretrain")
    page.wait_for_selector("#charts .main-svg")
    page.evaluate(
        """() => gristmill.draw(document.querySelector("#charts .chart"), {
            data: [{ type: "bar", x: ['<a href="https://evil.example">a</a>'], y: [1], text: ["one<br><b>two</b>"],
                     hovertemplate: "%{x}<extra></extra>" }],
            layout: { title: { text: '<a href="https://evil.example">b</a>' } },
        })"""
    )
    chart = page.locator("#charts .chart").first
    page.wait_for_function("document.querySelector('#charts .chart .bartext')")
    assert chart.locator("a").count() == 0
    assert chart.locator(".gtitle").text_content() == '<a href="https://evil.example">b</a>'
    assert chart.locator(".xtick").first.text_content() == '<a href="https://evil.example">a</a>'
    assert chart.locator(".bartext tspan").all_text_contents() == ["one", "<b>two</b>"]


def test_a_frame_that_may_save_nothing_has_airflow_save_the_files(address: str, page: Page, judged: Run) -> None:
    commit(judged, points(1, 31, "loss"))
    outer = f'<iframe sandbox="allow-scripts allow-same-origin allow-forms" width=380 height=800 src="{address}/one/pretrain">'
    page.route("**/outer", lambda route: route.fulfill(body=f"<body>{outer}</iframe></body>", content_type="text/html"))
    page.goto(f"{address}/outer")
    with page.expect_download() as saved:
        page.frame_locator("iframe").get_by_role("link", name="curves.json").click()
    assert saved.value.suggested_filename == "curves.json"
    done = judged.store.read_bytes(find(judged.store, judged.task("pretrain")).of(Kind.CURVES)[0].path)  # type: ignore[union-attr]
    assert saved.value.path().read_bytes() == done


def test_the_step_and_the_time_left_stand_until_new_points_come(address: str, page: Page, judged: Run) -> None:
    folder = f"{judged.task('sft').prefix}/attempt-aa"
    far = [Point(3, ALL_STEPS, 60.0, 0.0), Point(3, LEFT_S, 95.0, 0.0)]
    judged.store.write_bytes(f"{folder}/{points_name(0)}", dump_points([*points(1, 4, "loss"), *far]))
    page.add_init_script("const wait = setTimeout; window.setTimeout = (work, ms) => wait(work, Math.min(ms, 50));")
    with page.expect_response(lambda answer: "points" in answer.url and "number=0" in answer.url):
        page.goto(f"{address}/one/sft")
    expect(page.locator("#state")).to_contain_text("Step 3 of 60, about 1 min 35 s left.")
    page.wait_for_timeout(300)
    expect(page.locator("#state")).to_contain_text("Step 3 of 60, about 1 min 35 s left.")
    judged.store.write_bytes(
        f"{folder}/{points_name(1)}", dump_points([*points(4, 6, "loss"), Point(5, ALL_STEPS, 60.0, 0.0)])
    )
    expect(page.locator("#state")).to_contain_text("Step 5 of 60.")
    expect(page.locator("#lines th").first).to_have_text("loss")
    assert page.locator("#lines th").count() == 1
