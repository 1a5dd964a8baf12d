"""What the exit code of a whole sample says."""

import pytest

from mutants.__main__ import _report, by_module
from mutants.areas import Group
from mutants.faults import Fault


@pytest.mark.parametrize("least", [None, 0.5])
@pytest.mark.parametrize(
    ("state", "code"), [("noticed", 0), ("equivalent", 0), ("survived", 0), ("untried, its process ended", 1)]
)
def test_a_fault_that_was_not_tried_fails_the_sample_whatever_the_bar(state, code, least, capsys):
    one, other = (Fault("a.py", line, 1, "core/Flip", 1) for line in (1, 2))
    group = Group(name="all", bar=0.5, share=1.0, modules=("a.py",))
    assert _report([(group, one), (group, other)], {one: ("noticed", "x"), other: (state, "y")}, least) == code
    assert (f"{state}: a.py" in capsys.readouterr().out) == (state != "noticed")


def test_faults_go_by_module_the_most_first():
    a, b, c = Fault("a.py", 1, 1, "Flip", 1), Fault("b.py", 9, 1, "Flip", 1), Fault("b.py", 2, 1, "Flip", 1)
    assert by_module([a, b, c]) == [[c, b], [a]]
