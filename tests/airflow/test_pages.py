"""The cockpit's pages in a browser, on the run that the chain made: their numbers are those of its manifests and files.

Whoever may not see them gets no answer, and hostile texts stay texts. Files of tests run in the order of their names, so the chain
is done when these begin.
"""

import json
import re
import shutil
from collections import Counter
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from contract.funnel import human_bytes
from contract.headline import number
from contract.kinds import Kind
from contract.manifest import find, need
from contract.metrics import load_points
from contract.plan import open_run
from contract.results import Evaluate, Gate
from contract.stages import STAGES
from demo.server import is_free
from gristmill_airflow.environment import PASSWORDS, token
from perf.cockpit import guarded
from perf.cockpit.browser import CHROMIUM, Watch, chromium, drawn_s, signed_in
from perf.cockpit.payloads import PAYLOADS
from perf.cockpit.served import Served, with_rights

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no Chromium at {CHROMIUM}"),
]
DOZEN = PAYLOADS[:50:4][:12]


@pytest.fixture(scope="module")
def up(live):
    return Served(live.folder, live.api.url, (), live.home / PASSWORDS)


@pytest.fixture(scope="module")
def last(live):
    """(DAG -> id of its newest run, the run), of the newest run through which the chain went to its end."""
    found = {
        dag: {
            live.xcom(dag, one["dag_run_id"], "resolve"): one["dag_run_id"] for one in live.runs(dag, state="success")
        }
        for dag in ("corpus", "pretrain", "align", "evaluate")
    }
    uri = next(uri for uri in found["evaluate"] if all(uri in runs for runs in found.values()))
    return {dag: runs[uri] for dag, runs in found.items()}, open_run(uri)


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser, live, up):
    """`visit(path)`: a page of the cockpit with its charts drawn; no script of it may fail."""
    context = signed_in(browser, up.url, token(live.home, int(up.url.rpartition(":")[2])))
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)

    def show(path):
        drawn_s(page, f"{up.cockpit}{path}")
        return page

    yield show
    context.close()
    assert failures == []


def rows(page, caption):
    """The rows of the table with this caption: first cell -> the texts of the others."""
    table = page.locator("table", has=page.locator("caption", has_text=caption)).first
    found = {}
    for row in table.locator("tbody tr").all():
        first, *others = row.locator("th, td").all_inner_texts()
        found[first] = others
    return found


def test_the_funnel_is_that_of_the_manifests(visit, last):
    named, run = last
    page = visit(f"/run/corpus/{named['corpus']}")
    shown = rows(page, "Documents after each stage")
    expected = {}
    for stage in (one.name for one in STAGES.values() if one.drops and one.counts == "documents"):
        done = [found for (name, _), task in run.tasks().items() if name == stage and (found := find(run.store, task))]
        counts = [sum(getattr(one.rows, what) for one in done) for what in ("read", "kept", "bytes_kept")]
        reasons = sum((Counter(one.rows.reasons) for one in done), Counter())
        if counts[0]:
            expected[stage] = [f"{counts[0]:,}", f"{counts[1]:,}", human_bytes(counts[2]), reasons]
    assert shown.keys() == expected.keys()
    for stage, (read, kept, size, reasons) in expected.items():
        assert [shown[stage][at] for at in (0, 1, 3)] == [read, kept, size], stage
        told = shown[stage][4].partition("\n")[0]
        assert (
            Counter({reason: int(count.replace(",", "")) for reason, count in re.findall(r"(\w+) ([\d,]+)", told)})
            == reasons
        )
    bars = page.evaluate("() => [...document.querySelectorAll('.chart')][0].data[0].x.length")
    assert bars >= len(expected) - 2, "the chart has a bar for each step"


def test_a_dropped_page_is_found_by_its_address_and_told_with_its_reason(visit, last):
    named, run = last
    drops = [
        row
        for (stage, _), task in run.tasks().items()
        if stage == "filter"
        for file in need(run.store, task).of(Kind.DROPS)
        for row in pq.read_table(run.store.local(file.path)).to_pylist()
    ]
    row = drops[0]
    page = visit(f"/pages/corpus/{named['corpus']}")
    page.get_by_label("Address, host or id").fill(row["url"])
    page.get_by_role("button", name="Search").click()
    hit = page.locator("tbody tr", has_text=row["reason"]).first
    assert row["value"] in hit.inner_text()
    hit.get_by_role("link").click()
    page.wait_for_url("**/document/*")
    assert page.url.endswith(row["id"])
    told = page.locator(".warning").inner_text()
    assert f"The stage filter dropped it because of {row['reason']} ({row['value']})" in told


def test_the_pages_list_exactly_what_was_dropped_for_a_reason(visit, last):
    named, run = last
    manifests = [need(run.store, task) for (stage, _), task in run.tasks().items() if stage == "filter"]
    reasons = sum((Counter(one.rows.reasons) for one in manifests), Counter())
    reason, count = reasons.most_common()[-1]
    page = visit(f"/pages/corpus/{named['corpus']}?stage=filter&reason={reason}")
    assert page.locator("main tbody tr").count() == min(count, 50)


def test_the_curves_are_those_of_the_metrics(visit, last):
    named, run = last
    page = visit(f"/training/pretrain/{named['pretrain']}/pretrain")
    [file] = need(run.store, run.task("pretrain")).of(Kind.METRICS)
    points = load_points(run.store.read_bytes(file.path))
    shown = rows(page, "First, last, lowest and highest value of each curve")
    for name in ("loss", "lr", "grad_norm"):
        values = [one.value for one in points if one.name == name]
        assert shown[name][:2] == [number(values[0]), number(values[-1])], name
        assert shown[name][3] == number(min(values)), name
    drawn = page.evaluate(
        "() => [...document.querySelectorAll('#charts .js-plotly-plot')].map((one) => one.data[0].x.length)"
    )
    assert max(drawn) == len({one.step for one in points if one.name == "loss"})


def test_the_gate_says_what_its_manifest_says(visit, last):
    named, run = last
    text = (
        visit(f"/training/align/{named['align']}/gate").locator("main").inner_text().replace("\N{NO-BREAK SPACE}", " ")
    )
    gate = Gate.of(need(run.store, run.task("gate")))
    for share in (gate.accuracy, gate.low, gate.high, gate.threshold):
        assert f"{share:.1%}".replace("%", " %") in text


def test_models_have_the_figures_that_were_measured(visit, last):
    named, run = last
    page = visit(f"/models/evaluate/{named['evaluate']}")
    figures = Evaluate.of(need(run.store, run.task("evaluate")))
    text = page.locator("main").inner_text()
    for figure in (figures.bits_per_byte_pretrain, figures.bits_per_byte_sft, figures.bits_per_byte_ppo):
        assert number(figure) in text
    [samples] = need(run.store, run.task("evaluate")).of(Kind.SAMPLES)
    first = json.loads(run.store.read_bytes(samples.path).decode().splitlines()[0])
    assert " ".join(first["prompt"].split())[:60] in " ".join(text.split())


def test_every_page_fits_a_phone_and_has_one_heading_and_a_caption_for_each_table(visit, last):
    named, _ = last
    for path in (
        f"/run/corpus/{named['corpus']}", f"/pages/corpus/{named['corpus']}", f"/training/pretrain/{named['pretrain']}/pretrain",
        "/models", f"/new?from_dag=corpus&from_run={quote(named['corpus'])}",
    ):  # fmt: skip
        page = visit(path)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_function("() => document.documentElement.scrollWidth <= 390")  # charts follow a moment later
        assert page.locator("h1").count() == 1, path
        assert page.locator("table").count() == page.locator("table > caption").count(), path
        page.set_viewport_size({"width": 1280, "height": 900})


def test_every_route_refuses_whoever_may_not_see_or_change(up, last):
    port = next(one for one in range(19200, 19300) if is_free(one))
    with with_rights(up, port) as second:
        asked, wrong = guarded.unauthorised(second, {}, last[0]["corpus"])
    assert wrong == []
    assert asked > 3 * len(guarded.routes())


def test_hostile_texts_in_addresses_forms_and_notes_stay_texts(browser, live, up, last):
    named, run = last
    session = token(live.home, int(up.url.rpartition(":")[2]))
    corpus = f"{up.cockpit}/pages/corpus/{named['corpus']}"
    task = next(task for (stage, _), task in run.tasks().items() if stage == "filter")
    [file, *_] = need(run.store, task).of(Kind.DROPS)
    key = pq.read_table(run.store.local(file.path), columns=["id"])["id"][0].as_py()
    for policy in (True, False):
        watch = Watch(signed_in(browser, up.url, session, bypass_csp=not policy))
        page = watch.context.new_page()
        page.goto(f"{corpus}/document/{key}")
        if policy:
            page.get_by_label("Why this drop is wrong").fill("\n".join(DOZEN)[:1000])
            page.get_by_role("button", name="This drop is wrong").click()
        page.goto(corpus)
        page.get_by_label("Address, host or id").fill(" ".join(DOZEN)[:1900])
        page.get_by_role("button", name="Search").click()
        watch.look(page, page.url)
        assert "<script>" in page.get_by_label("Address, host or id").input_value()
        watch.visit([f"{corpus}/verdicts", f"{corpus}/document/{key}"])
        watch.context.close()
        assert (watch.fired, watch.planted, watch.refused) == (set(), [], [])
