"""A run's result in one line, for each DAG."""

import pytest

from gristmill_airflow.result import failure, result

GATE = "open: held-out accuracy 0.7"


@pytest.mark.parametrize(
    ("dag", "summaries", "figures", "line"),
    [
        (
            "corpus",
            {},
            {
                "crawl": [{"documents_read": 900}, {"documents_read": 90}],
                "curate": [{"documents_read": 10}],
                "mix": [{"training_documents": 240, "heldout_documents": 10}],
                "pack": [{"tokens": 51_234}],
            },
            "kept 250 of 1,000 documents (25.0%), 51,234 tokens",
        ),
        ("corpus", {}, {"mix": [{"training_documents": 0}]}, "kept 0 of 0 documents, 0 tokens"),
        ("corpus", {}, {"crawl": [{"documents_read": 9}]}, ""),
        ("pretrain", {"pretrain": "held-out perplexity 9 -> 8"}, {}, "held-out perplexity 9 -> 8"),
        ("align", {"gate": GATE, "ppo": "reward 1 -> 2"}, {}, f"gate {GATE}; PPO: reward 1 -> 2"),
        (
            "align",
            {"gate": GATE, "approval": "rejected by ann, 2026", "ppo": "PPO is left out, because ann rejected it"},
            {},
            f"gate {GATE}; PPO rejected by ann, 2026",
        ),
        (
            "align",
            {"gate": GATE, "ppo": "the recipe aligns by dpo", "dpo": "held-out accuracy 0.7"},
            {},
            f"gate {GATE}; DPO: held-out accuracy 0.7",
        ),
        ("align", {"gate": "closed", "ppo": "PPO is left out, because the gate is closed"}, {}, "gate closed"),
        (
            "evaluate",
            {"evaluate": "win rate 0.6", "export": "the ppo model"},
            {},
            "win rate 0.6; exported the ppo model",
        ),
        ("ablate", {"ablate": "a\nb" + "c" * 500}, {}, r"a\nb" + "c" * 396),
        ("crawl_refresh", {"pretrain": "x"}, {}, ""),
        ("align", {}, {}, ""),
    ],
)
def test_the_line_of_each_dag(dag, summaries, figures, line):
    assert result(dag, summaries, figures) == line


@pytest.mark.parametrize(
    ("failed", "line"),
    [
        ({}, "failed"),
        ({"pack": 1}, "failed in pack"),
        ({"b": 1, "a": 12}, "failed in a (12 tasks), b"),
        ({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, "failed in a, b, c and 2 others"),
    ],
)
def test_a_failure_names_three_tasks(failed, line):
    assert failure(failed) == line
