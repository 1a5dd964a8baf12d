"""Work that takes too long ends, be it Python or a pattern; what waits does not count."""

import re
import signal
import time

import pytest

from pipelines.text.clock import TooSlow, limited


def spin():
    while True:
        pass


def swallow():
    try:
        spin()
    except Exception:
        spin()


@pytest.mark.parametrize("work", [spin, swallow, lambda: re.match(r"(?:a|aa)*b", "a" * 60)])
def test_work_ends_at_its_limit(work):
    began = time.process_time()
    with pytest.raises(TooSlow, match=r"^0\.2 s$"), limited(0.2):
        work()
    assert 0.15 < time.process_time() - began < 1


def test_waiting_is_no_work():
    with limited(0.05):
        time.sleep(0.2)


def test_nothing_is_left_behind():
    before = signal.getsignal(signal.SIGVTALRM)
    with limited(60):
        assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 50
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert signal.getsignal(signal.SIGVTALRM) is before


def test_an_exception_that_was_swallowed_comes_again():
    seen = []

    def work():
        try:
            spin()
        except TooSlow as error:
            seen.append(str(error))
        spin()

    with pytest.raises(TooSlow), limited(0.1):
        work()
    assert seen == ["0.1 s"]
