"""What the terminal shows, from what logs say."""

import io

from contract.metrics import Progress
from demo.follow import Screen, latest_progress, reason


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
    assert reason(["killed"]) == "killed"
    assert reason([]) == "its log is empty"


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
    assert out.getvalue() == "\r\x1b[K" + "x" * 19 + "\r\x1b[Kdone\n"
