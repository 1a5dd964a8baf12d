"""The report and the what-if on a small run whose answers are known."""

from collections import Counter

import numpy as np
import pytest

from contract.errors import NotReadyError
from contract.funnel import Level
from contract.settings import Filter
from pipelines.report import count_table, domain_of, funnel_table, histogram, main, report, smallest_ids, what_if
from pipelines.schema import SCORED, SCORES, Drop
from pipelines.text.rules import Rule


def scored(make_document, name, language="en", **scores):
    fine = {
        "words": 100, "mean_word_chars": 5, "alpha_words": 1, "stop_words": 4, "punctuated_lines": 1, "sentences": 9,
    }  # fmt: skip
    blank = dict.fromkeys(SCORES, 0.0) | {"bad_words": None, "perplexity": None}
    return (
        make_document("x " * 5, name=name, url=f"https://www.{name}.test/", language=language) | blank | fine | scores
    )


@pytest.fixture
def run(make_document, make_corpus):
    """Four scored documents: two fine, one of 45 words, one of 30."""
    from contract.manifest import Attempt
    from pipelines.job import Sorter

    run = make_corpus([[[make_document("kept", name="a"), make_document("kept", name="b")]]])
    partition = run.segments[0].partition
    attempt = Attempt(run, run.task("score", partition))
    sorter = Sorter(attempt.store, f"{attempt.prefix}/{attempt.id}", "score", "x", SCORED)
    rows = [
        scored(make_document, "a"), scored(make_document, "b", "de", short_lines=0.5),
        scored(make_document, "c", words=45), scored(make_document, "d", words=30),
    ]  # fmt: skip
    for row in rows:
        sorter.keep(row, 10)
    done = sorter.close()
    attempt.commit(done.files, done.counts.rows())
    return run


def test_what_another_threshold_would_keep(run):
    text = what_if(run, Filter(min_words=40))
    assert "4 documents scored" in text
    assert text.split("\n")[1].split() == ["kept", "now", "2", "documents", "200", "words"]
    assert text.split("\n")[2].split() == ["kept", "then", "3", "documents", "245", "words"]
    assert [line.split() for line in text.split("\n")[3:]] == [["too_few_words", "->", "kept", "1"]]
    stricter = what_if(run, Filter.model_validate({"fineweb": {"max_short_line_fraction": 0.5}}))
    assert [line.split() for line in stricter.split("\n")[3:]] == [["kept", "->", "short_lines", "1"]]


def test_the_command_takes_overrides_and_names_mistakes(run, capsys):
    assert main(["--recipe", run.uri, "--set", "filter.min_words=40"]) == 0
    assert "kept then              3" in capsys.readouterr().out
    assert main(["--recipe", run.uri, "--set", "filter.min_word=40"]) == 78
    assert "did you mean min_words" in capsys.readouterr().err


def test_the_report_names_everything(run, tmp_path):
    assert main(["--recipe", run.uri, "--output", str(tmp_path / "report.md")]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| filter | 2 |" in text
    assert "repetition, document-wise, line-wise" in text
    assert "#### words" in text
    assert "too_few_words: drops when < 50, 2 of 4" in text
    assert "#### perplexity\n\nnot measured" in text
    assert text == report(run)


def test_nothing_done_yet(resolve_run, tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    with pytest.raises(NotReadyError, match="no stage is done"):
        report(resolve_run(tmp_path / "crawl"))


def test_the_funnel_counts_from_the_first_stage():
    levels = [Level("crawl", 200, 100, 10, None, None), Level("extract", 100, 50, 10, None, None)]
    lines = funnel_table(levels)
    assert lines[2].startswith("| crawl | 100 | 50.00% | 10 B | 97.76 % |")
    assert lines[3].startswith("| extract | 50 | 25.00% |")


def test_pieces():
    assert domain_of("https://www.A.test:80/x") == "a.test"
    assert domain_of("http://[broken") == domain_of(None) == "-"
    rows = []
    for name in "dbeca":
        smallest_ids(rows, {"id": name}, 3)
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert count_table("x", Counter(a=1), Counter(a=1, b=1))[2:] == [
        "| a | 2 | 1 | 50.0% |", "| b | 1 | 0 | 0.0% |"
    ]  # fmt: skip
    rule = Rule("length", Drop.TOO_FEW_WORDS, "words", "<", 2.0)
    lines = histogram("words", np.array([1.0, 2.0, 3.0, np.nan]), [rule])
    assert "too_few_words: drops when < 2, 1 of 3" in lines
    assert sum(int(line.replace("<- < 2", "").split()[-1]) for line in lines[lines.index("```") + 1 : -1]) == 3
