"""Progress lines say rows, rate and time left, and can be read back."""

import io

from hypothesis import given
from hypothesis import strategies as st

from contract import metrics
from contract.metrics import PROGRESS, Point, Progress, clock, dump_points, load_points


def test_a_line_has_rows_rate_and_time_left(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress("extract", "CC-MAIN-2024-10.00000", "documents", total=5000, start=1000, out=out)
    now[0] += 1.0
    progress.advance(50)
    assert out.getvalue() == "", "not more often than every two seconds"
    now[0] += 1.0
    progress.advance(50, "loss 3.2")
    assert out.getvalue() == "progress extract CC-MAIN-2024-10.00000 1,100/5,000 documents 50.0/s 1:18 left loss 3.2\n"
    match = PROGRESS.search("[2026-01-01] INFO - " + out.getvalue().strip())
    assert match is not None
    assert match.groupdict() == {
        "stage": "extract", "partition": "CC-MAIN-2024-10.00000", "done": "1,100", "total": "5,000", "unit": "documents",
        "rate": "50.0", "left": "1:18", "note": "loss 3.2",
    }  # fmt: skip


def test_a_long_run_says_less_often_and_never_falls_silent_for_more_than_a_minute(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    said: list[float] = []
    progress = Progress("pretrain", "all", "steps")
    monkeypatch.setattr(progress, "_say", lambda at, _: (said.append(at), setattr(progress, "_said", at)))
    for _ in range(5 * 24 * 3600):  # a step a second, for five days
        now[0] += 1
        progress.advance()
    gaps = [later - earlier for earlier, later in zip([0.0, *said], said, strict=False)]
    assert gaps == sorted(gaps)
    assert {gap for gap, at in zip(gaps, said, strict=True) if at <= 100} == {2}, "a demo's stages, as before"
    assert max(gap for gap, at in zip(gaps, said, strict=True) if at <= 600) == 12
    assert gaps[-1] == 60
    assert 7200 < len(said) < 7500, "instead of 216,000"


def test_without_a_total_there_is_no_time_left(capsys) -> None:
    progress = Progress("crawl", "all", "records")
    progress.advance(3)
    progress.finish()
    match = PROGRESS.search(capsys.readouterr().out.strip())
    assert match is not None
    assert (match["done"], match["total"], match["left"]) == ("3", None, None)


def test_without_progress_there_is_no_time_left() -> None:
    out = io.StringIO()
    for total in (5, 0):
        Progress("crawl", "all", "records", total=total, start=3, out=out).finish("killed")
    assert out.getvalue().splitlines() == [
        "progress crawl all 3/5 records 0.0/s killed",
        "progress crawl all 3/0 records 0.0/s killed",
    ]


def test_a_step_counts_as_one_and_the_last_line_comes_at_once(monkeypatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    progress = Progress("pretrain", "all", "steps", total=4)
    progress.advance()
    now[0] += 0.5
    progress.finish()
    assert capsys.readouterr().out == "progress pretrain all 1/4 steps 2.0/s 0:02 left\n"


def test_clock() -> None:
    assert [clock(seconds) for seconds in (-1, 0, 45, 723, 3723)] == ["0:00", "0:00", "0:45", "12:03", "1:02:03"]
    assert [clock(seconds) for seconds in (59.4, 3599, 3600, 7200)] == ["0:59", "59:59", "1:00:00", "2:00:00"]


@given(
    st.lists(st.builds(Point, st.integers(0), st.text(), st.floats(allow_nan=False), st.floats(0, 1e10)), max_size=5)
)
def test_points_come_back(points: list[Point]) -> None:
    assert load_points(dump_points(points)) == points
