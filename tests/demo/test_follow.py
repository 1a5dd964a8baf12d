"""What the terminal shows, from what logs say."""

import io
import itertools
from types import SimpleNamespace

import pytest

from contract.errors import GristmillError
from contract.manifest import Attempt, Rows
from contract.metrics import Progress
from contract.plan import resolve
from contract.results import Gate
from demo import follow
from demo.follow import Follower, Screen, latest_progress, reason


def test_latest_progress_is_the_last_line_of_any_stage():
    out = io.StringIO()
    progress = Progress("pretrain", "all", "steps", 100, every_s=0, out=out)
    progress.advance(10, note="loss 7.25")
    progress.advance(10, note="loss 6.5")
    said = latest_progress(["noise", *out.getvalue().splitlines(), "more noise"])
    assert said is not None
    assert said.startswith("20 of 100 steps, ")
    assert said.endswith(" left, loss 6.5")


def test_no_progress_yet():
    assert latest_progress(["starting", ""]) is None


def test_reason_prefers_the_line_meant_for_people():
    log = [
        "Traceback (most recent call last):",
        "error: crawl.source /x: it is missing or empty",
        "AirflowException: 65",
    ]
    assert reason(log) == "crawl.source /x: it is missing or empty"


def test_reason_falls_back_on_the_last_exception_then_the_last_line():
    assert (
        reason(["ValueError: first", "torch.OutOfMemoryError: last", "  at line 3"]) == "torch.OutOfMemoryError: last"
    )
    ranks = [
        "[rank1]: Traceback (most recent call last):",
        "[rank1]: KeyError: 'x'",
        "AirflowException: sft ended with exit code 1",
    ]
    assert reason([*ranks, "::endgroup::"]) == "KeyError: 'x'"
    assert reason(["Task failed", "AirflowException: sft ended with exit code 137", "::endgroup::"]).endswith(
        "code 137"
    )
    assert reason(["killed"]) == "killed"
    assert reason([]) == "its log is empty"


def test_the_screen_obeys_nothing_that_it_shows():
    out = io.StringIO()
    screen = Screen(out)
    screen.say("one\ntwo \x1b[2J\r\u202e")
    screen._last = -1e9
    screen.show("three \x9b")
    assert out.getvalue() == "one\ntwo " + r"\x1b[2J\r\u202e" + "\nthree " + r"\x9b" + "\n"


def test_screen_without_a_terminal_repeats_nothing():
    out = io.StringIO()
    screen = Screen(out)
    screen.show("a: 1 of 9")
    screen.show("a: 2 of 9")  # within the quiet time
    screen.say("a done")
    assert out.getvalue() == "a: 1 of 9\na done\n"


def test_screen_on_a_terminal_overwrites_its_last_line(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen(out)
    screen.show("x" * 50)
    screen.say("done")
    assert out.getvalue() == "\r\x1b[J" + "x" * 19 + "\r\x1b[Jdone\n"


def test_screen_on_a_terminal_gives_each_running_task_a_line(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    screen = Screen(out)
    screen.show("a: 1", "b: 1")
    screen.show("a: 2")
    screen.say("b done")
    assert out.getvalue() == "\r\x1b[Ja: 1\nb: 1" + "\r\x1b[1A\x1b[Ja: 2" + "\r\x1b[Jb done\n"


@pytest.fixture
def handover(monkeypatch):
    """`handover(found_after, healthy)`: wait for a run that starts after so many seconds, on a clock that does not take them."""

    def wait(found_after, healthy):
        now = itertools.count()
        clock = SimpleNamespace(monotonic=lambda: next(now), sleep=lambda _: None)
        monkeypatch.setattr(follow, "time", clock)
        monkeypatch.setattr(follow, "healthy", lambda _: healthy)
        calls = itertools.count()
        found = lambda *_: {"dag_run_id": "it"} if next(calls) >= found_after else None  # noqa: E731
        airflow = SimpleNamespace(url="http://localhost:1", newest_run=found)
        return Follower(airflow, Screen(io.StringIO()))._wait_for_run("align", "A-2026-47", "", "recipe")

    return wait


def test_a_busy_scheduler_is_waited_for_and_a_silent_one_is_not(handover):
    assert handover(10 * follow.HANDOVER_S, healthy=True) == "it"
    with pytest.raises(GristmillError, match=r"^align did not start, and Airflow's scheduler has been silent for 90 s"):
        handover(10 * follow.HANDOVER_S, healthy=False)


def test_a_finished_task_is_told_in_its_headline(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    (tmp_path / "recipe.yaml").write_text(f"{{store: {tmp_path}/store, crawl: {{source: {tmp_path}/crawl}}}}")
    runs = [resolve(str(tmp_path / "recipe.yaml"), name) for name in ("one", "two")]
    metrics = {"open": False, "accuracy": 0.6, "low": 0.502, "high": 0.691, "threshold": 0.55}
    Attempt(runs[0], runs[0].task("gate")).commit([], result=Gate(**metrics))
    rows = Rows(read=456, kept=393, dropped=63, reasons={"language": 63})
    Attempt(runs[0], runs[0].task("langid", runs[0].segments[0].partition)).commit([], rows=rows)

    def told(run, stage, index=-1):
        follower = Follower(SimpleNamespace(), Screen(io.StringIO()))
        follower.run = run
        return follower._outcome({"dag_id": "corpus", "task_id": stage, "map_index": index})

    closed = "closed: held-out accuracy 0.6, confidence interval 0.502 to 0.691, whose lower end is under 0.55"
    assert told(runs[0], "segment.langid", 0) == "393 of 456 documents kept; language 63"
    assert told(runs[1], "gate") == f"done before, skipped: {closed}"
    assert told(runs[1], "ppo") == f"PPO is left out, because the gate is {closed}"
    assert told(runs[1], "sft") == "left out"
    assert told(runs[1], "publish") == ""
