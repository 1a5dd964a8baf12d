import random
from pathlib import Path

import pytest

from mutants.areas import area, groups
from mutants.faults import Fault, apply, change, draw, faults, possible

ROOT = Path(__file__).parents[2]
SOURCE = """\
def save(file, rows):
    if not rows or len(rows) > 5:
        return False
    for row in rows:
        file.write(row)
    return -1 + len(rows)
"""


def changes(kind: str) -> list[str]:
    return [change(SOURCE, apply(fault, SOURCE)) for fault in faults("m.py", SOURCE) if fault.kind == kind]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("SkipCall", ["file.write(row) -> pass"]),
        ("DropTerm", ["return -1 + len(rows) -> return -1"]),
        (
            "ReplaceComparisonOperator_Gt_GtE",
            ["if not rows or len(rows) > 5: -> if not rows or len(rows) >= 5:"],
        ),
        ("ReplaceOrWithAnd", ["if not rows or len(rows) > 5: -> if not rows and len(rows) > 5:"]),
        ("ReplaceFalseWithTrue", ["return False -> return True"]),
        ("ReplaceUnaryOperator_Delete_USub", ["return -1 + len(rows) -> return 1 + len(rows)"]),
        ("ZeroIterationForLoop", ["for row in rows: -> for row in []:"]),
    ],
)
def test_each_kind_changes_its_place_and_nothing_else(kind, expected):
    assert changes(kind) == expected


def test_every_fault_leaves_text_that_compiles_and_differs():
    for fault in faults("m.py", SOURCE):
        faulty = apply(fault, SOURCE)
        compile(faulty, "m.py", "exec")
        assert faulty != SOURCE
        assert len(faulty.splitlines()) == len(SOURCE.splitlines())


def test_a_fault_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="does not exist in this text"):
        apply(Fault("m.py", 1, 0, "SkipCall", 7), SOURCE)


def test_text_that_would_not_compile_is_no_fault():
    source = "try:\n    if found := look():\n        a\nexcept (a.A, a.B):\n    b\n"
    kinds = {(fault.kind, possible(fault, source)) for fault in faults("m.py", source)}
    assert kinds == {("AddNot", False), ("ExceptionReplacer", False)}
    assert all(possible(fault, SOURCE) for fault in faults("m.py", SOURCE))


def test_a_sample_is_the_same_for_the_same_seed_and_takes_each_place_once():
    found = faults("m.py", SOURCE)
    drawn = draw(found, 5, random.Random(3))
    assert drawn == draw(list(reversed(found)), 5, random.Random(3))
    assert drawn != draw(found, 5, random.Random(4))
    assert len({(one.line, one.column) for one in drawn}) == 5
    places = {(one.line, one.column) for one in found}
    assert len(draw(found, 1000, random.Random(3))) == len(places)


def test_every_module_is_in_one_group_and_has_tests():
    modules = [module for group in groups(ROOT) for module in group.modules]
    assert len(modules) == len(set(modules))
    assert {"contract/manifest.py", "pipelines/mix.py", "pipelines/urls/filter.py", "training/ppo.py"} <= set(modules)
    for module in modules:
        for file in area(module, ROOT):
            assert (ROOT / file).is_file(), f"{module}: {file} does not exist"
