"""The cockpit's bench: the synthetic store is what stages write, the driver counts right, and the detectors detect."""

import asyncio
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract import feedback
from contract.documents import parts_of, read_documents
from contract.funnel import levels
from contract.kinds import Kind
from contract.manifest import need
from contract.plan import open_run
from contract.results import Gate
from contract.schema import DOCUMENTS, DROPS, SCORED
from contract.settings.filter import Filter
from contract.verify import verify
from perf.cockpit import corpus, guarded, load, models, pool, rated, store
from perf.cockpit.browser import CHROMIUM, Watch, chromium
from perf.cockpit.payloads import ELSEWHERE, PAYLOADS
from perf.cockpit.walked import Walk, walked
from pipelines.rules.decide import decide, rules_for
from reports.rating import rounds_of
from reports.why import explain

needs_chromium = pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no Chromium at {CHROMIUM}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of two segments of 1,024 documents with 11 runs."""
    folder = tmp_path_factory.mktemp("cockpit")
    small = store.Size(documents=1, runs=11, steps=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "shape_of", lambda documents: corpus.Shape(segments=2, files=1, rows=1024))
        return store.make(folder, small, processes=1)


def test_the_funnel_of_the_synthetic_run_adds_up(made):
    found = {level.stage: level for level in levels(made.run)}
    assert list(found) == ["crawl", "extract", "langid", "score", *corpus.SNAPSHOT_STAGES[4:5], *corpus.CORPUS_STAGES]
    assert found["score"].kept == 2048
    for before, after in zip(list(found.values())[:-1], list(found.values())[1:], strict=True):
        assert after.read == before.kept
        assert after.read - after.kept == after.reasons.total()
    assert all(found[stage].reasons for stage in ("filter", "dedup_url", "dedup_fuzzy"))


def test_files_hold_what_manifests_say_and_what_schemas_declare(made):
    task = made.run.task("decontaminate")
    assert verify(f"{made.run.store.full(task.prefix)}/manifest.json").wrong == ()
    first = made.run.segments[0].partition
    for stage, kind, schema in (
        ("extract", Kind.DOCUMENTS, DOCUMENTS),
        ("score", Kind.DOCUMENTS, SCORED),
        ("filter", Kind.DROPS, DROPS),
    ):
        for file in need(made.run.store, made.run.task(stage, first)).of(kind):
            assert pq.read_schema(made.run.store.local(file.path)).names == schema.names


def test_every_drop_of_the_filter_is_the_one_that_the_rules_decide(made):
    manifest = need(made.run.store, made.run.task("filter", made.run.segments[0].partition))
    (part,) = parts_of(manifest)
    documents = pq.read_table(made.run.store.local(part.documents.path)).to_pylist()
    assert part.index is not None
    kept = set(pq.read_table(made.run.store.local(part.index.path))["row"].to_pylist())
    (drops,) = manifest.of(Kind.DROPS)
    told = {
        one["id"]: (one["reason"], one["value"]) for one in pq.read_table(made.run.store.local(drops.path)).to_pylist()
    }
    for number, row in enumerate(documents):
        verdict = decide(row, rules_for(made.run.recipe.filter, row["language"]))
        assert (verdict is None) == (number in kept)
        if verdict:
            assert told[row["id"]] == (str(verdict[0]), f"{verdict[1]:.4g}")


def test_a_near_duplicate_resembles_the_document_that_stays(made):
    (drops, *_) = need(made.run.store, made.run.task("dedup_fuzzy")).of(Kind.DROPS)
    row = pq.read_table(made.run.store.local(drops.path)).to_pylist()[0]
    lines = "\n".join(explain(made.run, row["id"]))
    assert f"it stays: {row['duplicate_of']} https://" in lines
    assert float(lines.partition("similarity of the two: ")[2][:4]) > 0.7


def test_cuts_leave_readable_texts(made):
    part = parts_of(need(made.run.store, made.run.task("decontaminate")))[0]
    assert part.cuts is not None
    whole = {
        row["row"]: len(row["text"]) for row in read_documents(made.run.store, corpus.Part(part.documents), ["text"])
    }
    left = {row["row"]: len(row["text"]) for row in read_documents(made.run.store, part, ["text"])}
    assert {whole[row] - size for row, size in left.items()} == {0, corpus.CUT_BYTES}


def test_the_tiny_runs_share_results_and_some_are_unfinished(made):
    assert len(made.tiny) == 10
    runs = [open_run(uri) for uri in made.tiny]
    assert len({run.task("pretrain").fingerprint for run in runs}) == 10
    assert len({run.task("pack").fingerprint for run in runs}) == 1
    done = [run.store.exists(f"{run.task('pretrain').prefix}/manifest.json") for run in runs]
    assert done.count(False) == 1
    assert [Gate.of(need(run.store, run.task("gate"))).open for run in runs[:4]] == [True, False, True, False]


def test_a_run_beyond_the_variants_is_an_earlier_one_under_another_name(made):
    again = store._again(made.run.store, made.tiny[3], "tiny-0003", "tiny-0203")
    assert open_run(again).tasks() == open_run(made.tiny[3]).tasks()


def test_the_hostile_run_holds_every_payload_in_titles_addresses_curves_and_replies(made):
    run = open_run(made.hostile)
    part = parts_of(need(run.store, run.task("score", run.segments[0].partition)))[0]
    rows = list(read_documents(run.store, part, ["title", "url", "text"]))
    assert {row["title"] for row in rows} == set(PAYLOADS)
    assert all(row["title"] in row["url"] and row["text"].startswith(row["title"]) for row in rows)
    samples = need(run.store, run.task("evaluate")).of(Kind.SAMPLES)[0]
    assert "pwned(7)" in run.store.read_bytes(samples.path).decode()
    assert "pwned(7)" in run.recipe.name


def test_a_store_of_this_size_is_found_again(made, monkeypatch):
    folder = made.run.store.local("").parent
    monkeypatch.setattr(corpus, "write", lambda *_: pytest.fail("it is there already"))
    assert store.make(folder, made.size) == made


def test_the_shape_holds_at_least_the_documents_asked_for():
    shape = corpus.shape_of(10_000_000)
    assert (shape.segments, shape.files, shape.documents) == (60, 41, 10_076_160)


def test_scores_cross_their_thresholds_in_a_few_documents_of_a_hundred():
    drawn = np.random.default_rng(1)
    settings = Filter()
    for rule in settings.rules():
        share = np.mean([rule.drops(value) for value in pool.draw(rule.score, 20_000, drawn).tolist()])
        assert share < 0.15, rule


def test_curves_have_the_names_and_numbers_of_pretraining():
    points = list(models.pretraining(1000, np.random.default_rng(0)))
    count = {name: sum(one.name == name for one in points) for name in ("loss", "lr", "tokens_per_s", "heldout_loss")}
    assert count == {"loss": 1000, "lr": 1000, "tokens_per_s": 100, "heldout_loss": 200}
    losses = [one.value for one in points if one.name == "loss"]
    assert losses[0] > 7
    assert np.mean(losses[-100:]) < 4


@pytest.mark.parametrize(("values", "p95"), [([], float("inf")), ([3], 3), (range(1, 101), 95), (range(1, 21), 19)])
def test_the_95th_percentile_is_a_value_that_was_measured(values, p95):
    assert load.percentile(list(values), 0.95) == p95


class Slow(BaseHTTPRequestHandler):
    """Answers at once, but sends the body late, as a page whose first byte is fast."""

    seen = threading.Semaphore(0)
    cookies: set[str | None] = set()  # noqa: RUF012
    late = threading.Event()

    def do_GET(self):
        self.cookies.add(self.headers.get("cookie"))
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()
        self.wfile.flush()
        self.late.wait(0.3)
        self.wfile.write(b"page")

    def log_message(self, *_):
        pass


@pytest.fixture
def slow():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_driver_times_the_first_byte_and_counts_failures(slow):
    pages = iter([("funnel", "/a")] * 11 + [("models", "/broken")])
    loaded = load.press(slow, ["one", "two", "three"], lambda _: next(pages), 12)
    assert len(loaded.answers) == 12
    assert {one.bytes for one in loaded.answers} == {4}
    assert loaded.p95_s("funnel") < 0.28 < loaded.seconds
    assert [(one.page, one.status) for one in loaded.failures()] == [("models", 500)]
    assert {"_token=one", "_token=two", "_token=three"} == Slow.cookies


def test_a_server_that_is_gone_is_a_failure_and_no_fast_page():
    loaded = load.press("http://127.0.0.1:9", ["one"], lambda _: ("funnel", "/"), 2)
    assert len(loaded.failures()) == 2
    assert loaded.p95_s("funnel") == load.LIMIT_S


def test_users_who_read_wait_between_pages(monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    load.press("http://127.0.0.1:9", ["one"], lambda drawn: ("funnel", "/"), 200, think_s=3.0)
    assert 2 < np.mean(waited) < 4


READ = guarded.Route("GET", "/run/corpus/large", of_dag=True)
LIST = guarded.Route("GET", "/run", of_dag=False)
WRITE = guarded.Route("POST", "/new/start/corpus", of_dag=True)


@pytest.mark.parametrize(
    ("route", "who", "status", "text", "wrong"),
    [
        (READ, "nobody", 401, "", False),
        (READ, "nobody", 200, "", True),
        (READ, "nobody", 404, "", True),
        (READ, "forged", 500, "", True),
        (READ, "stranger", 403, "", False),
        (READ, "stranger", 200, "", True),
        (LIST, "stranger", 200, "There is no run yet.", False),
        (LIST, "stranger", 200, "runs: tiny-0003", True),
        (LIST, "stranger", 404, "no run file:///store", True),
        (WRITE, "viewer", 403, "", False),
        (WRITE, "viewer", 303, "", True),
        (WRITE, "another site", 200, "", True),
    ],
)
def test_what_counts_as_an_unauthorised_answer(route, who, status, text, wrong):
    assert bool(guarded.complaint(route, who, status, text)) == wrong


def test_every_route_of_the_application_is_asked():
    found = guarded.routes()
    assert READ in found
    assert LIST in found
    assert not [one for one in found if "{" in one.path]


def test_payloads_are_fifty_different_texts_that_name_their_number():
    assert len(set(PAYLOADS)) == 50
    assert all(f"pwned({number})" in one or f"{ELSEWHERE}/{number}" in one for number, one in enumerate(PAYLOADS))


@needs_chromium
def test_the_browser_notices_texts_that_run_lead_elsewhere_or_become_elements():
    with chromium() as browser:
        watch = Watch(browser.new_context())
        page = watch.context.new_page()
        raw = "".join(f"<p>{one}</p>" for one in (PAYLOADS[6], PAYLOADS[11], "<script>alert(1)</script>"))
        page.route("http://here.invalid/", lambda route: route.fulfill(body=raw, content_type="text/html"))
        page.goto("http://here.invalid/")
        page.wait_for_timeout(300)
        watch.look(page, "raw")
        assert watch.fired == {-1, 6, 11}
        assert {one.partition(": ")[2] for one in watch.planted} == {"IMG onerror", "IMG src", "SCRIPT"}
        quiet = Watch(browser.new_context())
        quiet.look(quiet.context.new_page(), "empty")
        assert quiet.injections() == 0


@needs_chromium
def test_a_walk_counts_its_clicks_and_needs_its_answer():
    with chromium() as browser:
        page = browser.new_context().new_page()
        page.set_default_timeout(2000)
        page.set_content("<a href='#x' onclick=\"document.body.innerHTML='<b>next</b>'\">Funnel</a>")
        assert walked(page, Walk(("Funnel", "b:has-text('next')"), "b")) == 2
        with pytest.raises(Exception, match="Timeout"):
            walked(page, Walk(("Funnel",), "b"))


def test_a_seed_draws_the_same_pool():
    one, two = (pool.make(64, Filter(), seed=3) for _ in range(2))
    assert one.columns.equals(two.columns)
    assert one.texts.equals(two.texts)
    assert not pool.make(64, Filter(), seed=4).columns.equals(one.columns)


def test_the_rounds_have_votes_and_items_that_are_left_to_rate(made):
    rated.open_rounds(made)
    rated.open_rounds(made)  # a second time changes nothing
    for uri, count in ((made.large, rated.ITEMS), (made.hostile, len(PAYLOADS))):
        run = open_run(uri)
        [one] = rounds_of(run)
        found = feedback.items(run.store, one)
        assert (one.name, len(found)) == (rated.name_of(one.run), count)
        votes = feedback.ballots(run.store, one).votes
        assert len(votes) == rated.EACH * (count * 9 // 10)
        assert not [vote for vote in votes if vote.mistake(found[vote.item], one.rating)]
    [hostile] = rounds_of(open_run(made.hostile))
    texts = [reply.text for item in feedback.items(made.run.store, hostile).values() for reply in item.replies]
    assert all(payload in text for payload in PAYLOADS for text in texts)
    assert {vote.annotator for vote in feedback.ballots(made.run.store, hostile).votes} >= {*PAYLOADS[:9]}
