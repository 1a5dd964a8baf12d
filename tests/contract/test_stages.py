"""The stage table is the one that is committed as docs/stages.md, versions included, and its edges lead one way."""

from contract.stages import downstream, upstream
from docs.stages import PAGE, render


def test_the_table_is_the_documented_one() -> None:
    """After a change that is meant: .venv/bin/python -m docs.generate."""
    assert PAGE.read_text() == render()


def test_a_stage_depends_on_what_it_reads_directly_and_not() -> None:
    assert upstream("crawl") == set()
    assert upstream("minhash_sign") == {"crawl", "extract", "langid", "score", "filter"}
    assert upstream("gate") == upstream("reward") | {"reward"}
    assert {"crawl", "mix", "pretrain", "sft", "preferences"} < upstream("reward")
    learned = {"gate", "ppo", "dpo", "grpo", "evaluate", "benchmark", "abilities", "export", "sample"}
    assert downstream("reward") == learned
    assert downstream("export") == set()
