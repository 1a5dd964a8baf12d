"""The page of an ablation: tables whose numbers are those of the decision."""

from evals.ablation import Measure
from evals.verdicts import compare, mean_and_spread
from training.ablation_page import figures_table, render, verdicts_table

BITS = Measure("bits per byte", {"a": {0: [1.0, 1.1], 1: [1.2, 1.1]}, "b": {0: [2.0, 2.1], 1: [2.2, 2.1]}}, [1.0, 1.0])
QUIZ = Measure("quiz", {"a": {0: [1, 0], 1: [1, 0]}, "b": {0: [1, 0], 1: [0, 0]}}, [1.0, 1.0], lower_is_better=False)


def test_tables_hold_the_figures() -> None:
    found = compare([BITS, QUIZ], 0.95)
    assert figures_table(found) == [
        "| variant | models | bits per byte | spread | quiz   |",
        "| ------- | ------ | ------------- | ------ | ------ |",
        "| a       | 2      | 1.1000        | 0.0707 | 0.5000 |",
        "| b       | 2      | 2.1000        | 0.0707 | 0.2500 |",
    ]
    assert mean_and_spread(BITS, "a")[2] == 2
    row = verdicts_table(found.main)[2]
    assert "| a - b | -1.0000" in row
    assert row.endswith("| a is better |")
    one_seed = compare([Measure("x", {"a": {0: [1.0, 2.0]}, "b": {0: [1.0, 2.0]}}, [1.0, 1.0])], 0.95)
    assert "| +0.0000    | -  " in verdicts_table(one_seed.main)[2]


def test_the_report_names_what_each_variant_changes() -> None:
    text = render(compare([BITS, QUIZ], 0.95), ["A fact."], {"a": (), "b": ("x.y=1", "x.z=2")})
    assert "- a: the recipe itself\n- b: `x.y=1`, `x.z=2`\n" in text
    assert "bits per byte: lower is better.\nquiz: higher is better.\n" in text
    assert text.index("A fact.") < text.index("## Figures") < text.index("## Verdicts") < text.index("## By source")
    assert "## By source" not in render(compare([BITS], 0.95), [], {})


def test_what_diverged_stands_below_the_figures() -> None:
    found = compare([Measure(BITS.name, {"a": BITS.values["a"]}, [1.0, 1.0])], 0.95, {"hot": [3, 4]})
    assert figures_table(found) == [
        "| variant | models     | bits per byte | spread |",
        "| ------- | ---------- | ------------- | ------ |",
        "| a       | 2          | 1.1000        | 0.0707 |",
        "| hot     | 2 diverged | -             | -      |",
    ]
    text = render(found, [], {"a": (), "hot": ("pretrain.optim.lr=9",)})
    assert "**a is better than every other variant: training diverged for hot (seed 3, 4)**" in text
    assert "## Verdicts" not in text
    assert "training diverged for a (seed 0)" in render(compare([], 0.95, {"a": [0]}), ["A fact."], {})
