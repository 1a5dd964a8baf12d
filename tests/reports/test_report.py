"""The report and the what-if on a small run whose answers are known."""

import math
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import NotReadyError
from contract.funnel import Level
from contract.manifest import Attempt
from contract.schema import SCORED, Drop
from contract.scores import SCORES
from contract.settings.filter import RULE_SETS, Filter, Rule
from pipelines.spark.documents import DocumentSink
from reports import charts
from reports.refinedweb import funnel, funnel_table
from reports.report import (
    _cell,
    count_table,
    domain_of,
    judged,
    main,
    reason_section,
    report,
    score_table,
    scores_of,
    smallest_ids,
    tables,
    what_if,
)


def scored(make_document, name, language="en", **scores):
    fine = {
        "words": 100, "mean_word_chars": 5, "alpha_words": 1, "stop_words": 4, "punctuated_lines": 1, "sentences": 9,
    }  # fmt: skip
    fine["kept_words"] = scores.get("words", 100)
    blank = dict.fromkeys(SCORES, 0.0) | {"bad_words": None, "perplexity": None}
    return (
        make_document("x " * 5, name=name, url=f"https://www.{name}.test/", language=language) | blank | fine | scores
    )


@pytest.fixture
def run(make_document, make_corpus):
    """Four scored documents: two fine, one of 45 words, one of 30."""
    return four_scored(make_document, make_corpus, SCORED)


def four_scored(make_document, make_corpus, schema):
    run = make_corpus([[[make_document("kept", name="a"), make_document("kept", name="b")]]])
    partition = run.segments[0].partition
    attempt = Attempt(run, run.task("score", partition))
    sink = DocumentSink(attempt.store, f"{attempt.prefix}/{attempt.id}", "score", "x", schema)
    rows = [
        scored(make_document, "a"), scored(make_document, "b", "de", short_lines=0.5),
        scored(make_document, "c", words=45), scored(make_document, "d", words=30),
    ]  # fmt: skip
    for row in rows:
        sink.keep(row, 10)
    done = sink.close()
    attempt.commit(done.listed(), done.counts.rows())
    return run


def test_what_another_threshold_would_keep(run):
    text = what_if(run, Filter(min_words=40))
    assert "4 documents scored" in text
    assert text.split("\n")[1].split() == ["kept", "now", "2", "documents", "200", "words"]
    assert text.split("\n")[2].split() == ["kept", "then", "3", "documents", "245", "words"]
    assert [line.split() for line in text.split("\n")[3:]] == [["too_few_words", "->", "kept", "1"]]
    stricter = what_if(run, Filter.model_validate({"fineweb": {"max_short_line_fraction": 0.5}}))
    assert [line.split() for line in stricter.split("\n")[3:]] == [["kept", "->", "short_lines", "1"]]


def test_a_score_that_older_results_lack_is_not_measured_and_cannot_be_tried(make_document, make_corpus):
    older = SCORED.remove(SCORED.get_field_index("perplexity"))
    run = four_scored(make_document, make_corpus, older)
    columns, languages = scores_of(run)
    assert np.isnan(columns["perplexity"]).all()
    assert columns["words"].tolist() == [100, 100, 45, 30]
    assert len(languages) == 4
    assert "4 documents scored" in what_if(run, Filter(min_words=40))
    with pytest.raises(NotReadyError, match=r"was scored before perplexity was measured; resolve its recipe again"):
        what_if(run, Filter.model_validate({"bloom": {"enabled": True}}))


def test_the_command_takes_overrides_and_names_mistakes(run, capsys):
    assert main(["--recipe", run.uri, "--set", "filter.min_words=40"]) == 0
    assert "kept then              3" in capsys.readouterr().out
    assert main(["--recipe", run.uri, "--set", "filter.min_word=40"]) == 78
    assert "did you mean min_words" in capsys.readouterr().err


def test_only_settings_of_the_filter_can_be_tried(run, capsys):
    given = ["--recipe", run.uri, "--set", "filter.min_words=40", "--set", "score.short_line_chars=80"]
    assert main(given) == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--set score.short_line_chars=80: only filter.KEY=VALUE" in printed.err


def test_the_report_names_everything(run, capsys):
    assert main(["--recipe", run.uri]) == 0
    text = capsys.readouterr().out
    assert "| filter | line-wise | 2 | 50.00% | 23.34 % |" in text
    assert "#### words" in text
    assert "too_few_words: drops when < 50, 2 of 4" in text
    assert "#### perplexity\n\nnot measured" in text
    assert "| words | 30.4 | 72.5 | 100 | too_few_words < 50: 2; too_many_words > 100000: 0 |  |" in text
    assert "| perplexity |  |  |  |  | 4: en, de |" in text
    assert text == report(run)[0]


def test_a_written_report_has_figures_that_are_well_formed_and_the_same_every_time(run, tmp_path):
    for name in ("one", "two"):  # folders that are not there yet
        assert main(["--recipe", run.uri, "--no-snippets", "--output", str(tmp_path / name / "r.md")]) == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["r-funnel.svg", "r-scores.svg", "r.md"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_text() == (tmp_path / "two" / path.name).read_text()
    markdown = (tmp_path / "one" / "r.md").read_text()
    assert "(r-funnel.svg)" in markdown
    assert "(r-scores.svg)" in markdown
    assert "####" not in markdown, "the figure stands for the histograms"
    drawn = ElementTree.parse(tmp_path / "one" / "r-scores.svg")
    words = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert set(SCORES) <= set(words)
    assert "< 50: 50.0%; > 100000: 0.0%" in words
    assert "not measured" in words


def test_an_output_that_cannot_be_written_is_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--recipe", run.uri, "--output", str(tmp_path / "file" / "r.md")]) == 1
    assert capsys.readouterr().err.startswith(f"error: --output {tmp_path}/file/r.md: ")


def test_no_scored_document_is_an_answer_and_no_score_is_none(make_document, make_corpus, capsys):
    from contract.manifest import Attempt

    run = make_corpus([[[make_document("kept")]]])
    given = ["--recipe", run.uri, "--set", "filter.min_words=40"]
    assert main(given) == 65
    assert "score is not done; run: python -m pipelines score" in capsys.readouterr().err
    Attempt(run, run.task("score", run.segments[0].partition)).commit([])
    assert main(given) == 0
    assert capsys.readouterr().out.split("\n")[0] == "0 documents scored"
    assert main(["--recipe", run.uri]) == 0
    assert "from 0 scored documents of 1 segments" in capsys.readouterr().out


def test_a_rule_is_judged_only_where_a_language_is_asked_it():
    columns = {"mean_word_chars": np.array([1.0, 2.0, 5.0]), "words": np.array([9.0, 60.0, 60.0])}
    kept, rules = judged(columns | {"stop_words": np.array([0.0, np.nan, 4.0])}, ["zh", "eo", "en"], Filter())
    np.testing.assert_array_equal(kept["mean_word_chars"], [np.nan, 2.0, 5.0])
    np.testing.assert_array_equal(kept["stop_words"], [0.0, np.nan, 4.0])
    np.testing.assert_array_equal(kept["words"], columns["words"])
    assert {rule.reason for rule in rules} >= {"mean_word_length", "few_stop_words"}
    table = score_table(kept, ["zh", "eo", "en"], rules)
    assert table[2].endswith("mean_word_length < 3: 1; mean_word_length > 10: 0 | 1: zh |")
    assert table[4].endswith("few_stop_words < 2: 1 | 1: eo |")


def test_snippets_are_masked_and_can_be_left_out():
    rows = [
        {"id": f"{n:02}", "stage": "langid", "reason": "language", "value": "de 0.99", "url": "http://a.test/", "snippet": f"mail a{n}@b.com or +1 415-555-2671 *now*"}
        for n in range(12)
    ]  # fmt: skip
    lines = reason_section(reversed(rows))
    assert lines[1] == "### langid: language (12)"
    assert len(lines) == 3 + 10, "a sample of ten"
    assert lines == reason_section(rows), "the same sample in any order"
    assert lines[3] == "- `de 0.99` http://a.test/: mail email@example.com or +1 555-555-0100 \\*now\\*"
    assert reason_section(rows, snippets=False) == [
        "", "| stage | reason | documents |", "|---|---|--:|", "| langid | language | 12 |"
    ]  # fmt: skip


def test_a_report_is_of_a_run(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "the following arguments are required: --recipe" in capsys.readouterr().err


def test_documents_by_language_and_domain(run, make_document):
    from contract.manifest import Attempt
    from pipelines.spark.documents import DocumentSink

    partition = run.segments[0].partition
    attempt = Attempt(run, run.task("langid", partition))
    sink = DocumentSink(attempt.store, f"{attempt.prefix}/{attempt.id}", "langid", "x")
    for value, url in (("de 0.97", "https://www.a.test/1"), ("fr 0.80", "https://a.test/2"), ("fr 0.90", None)):
        sink.drop(make_document("weg", name=value, url=url), Drop.LANGUAGE, value)
    done = sink.close()
    attempt.commit(done.listed(), done.counts.rows())
    assert tables(run) == [
        "", "## By language, up to `filter`", "",
        "| language | read | kept | share |", "|---|--:|--:|--:|",
        "| en | 3 | 2 | 66.7% |", "| de | 2 | 0 | 0.0% |", "| fr | 2 | 0 | 0.0% |",
        "", "## By domain, up to `filter`", "",
        "| domain | read | kept | share |", "|---|--:|--:|--:|",
        "| example.org | 2 | 2 | 100.0% |", "| a.test | 2 | 0 | 0.0% |", "| - | 1 | 0 | 0.0% |",
    ]  # fmt: skip


def test_the_parts_of_a_report(run, capsys):
    text, figures = report(run)
    assert text.startswith(
        "# What the filters did: test\n\nMade by `python -m reports.report` from 4 scored documents of 1 segments.\n\n| stage |"
    )
    assert text.endswith("```\n")
    assert figures == {}
    markdown, figures = report(run, figures="r")
    assert sorted(figures) == ["r-funnel.svg", "r-scores.svg"]
    assert "left after each step](r-funnel.svg)\n\n| stage |" in markdown
    shown = "".join(figures["r-funnel.svg"])
    assert ">23.3%</text>" in shown, "RefinedWeb's share as a percentage"
    assert ">50.0%</text>" in shown
    assert main(["--recipe", run.uri]) == 0
    assert capsys.readouterr().out == text


def test_scores_that_were_not_measured_are_no_number(run):
    columns, languages = scores_of(run)
    assert languages == ["en", "de", "en", "en"]
    assert columns["words"].tolist() == [100, 100, 45, 30]
    assert np.isnan(columns["perplexity"]).all()
    assert columns["short_lines"].tolist() == [0, 0.5, 0, 0]


def test_long_tables_and_cells_are_cut():
    kept = Counter({f"host{at}": 100 - at for at in range(30)})
    assert len(count_table("x", kept, Counter())) == 2 + 25
    assert _cell("x" * 200) == "x" * 120
    rows = []
    for at in range(12):
        smallest_ids(rows, {"id": at})
    assert len(rows) == 10


def test_nothing_done_yet(resolve_run, tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    with pytest.raises(NotReadyError, match="no stage is done"):
        report(resolve_run(tmp_path / "crawl"))


def test_the_funnel_stands_in_refinedwebs_steps():
    found = [
        Level("crawl", 200, 190, 10, Counter(), Counter()),
        Level("extract", 190, 100, 10, Counter(language_prefilter=80, extract_empty=10), Counter()),
        Level("langid", 100, 90, 10, Counter(language=10), Counter()),
        Level("score", 90, 90, 10, Counter(), Counter()),
        Level("filter", 90, 40, 10, Counter(duplicate_lines=5, top_ngram=5, too_few_words=10, hash_ratio=1, lines_removed=9, short_lines=20), Counter()),
        Level("dedup_url", 40, 38, 10, Counter(duplicate_url=2), Counter()),
        Level("dedup_fuzzy", 38, 30, 10, Counter(near_duplicate=8), Counter()),
    ]  # fmt: skip
    assert [(step.stage, step.name, step.kept) for step in funnel(found)] == [
        ("crawl", "URL filter", 190), ("extract", "extraction", 180), ("langid", "language", 90), ("filter", "repetition", 80),
        ("filter", "document-wise", 69), ("filter", "line-wise", 60), ("filter", "other rule sets", 40), ("dedup_url", "dedup_url", 38),
        ("dedup_fuzzy", "fuzzy deduplication", 30),
    ]  # fmt: skip
    assert [step.published for step in funnel(found)] == [97.76, 96.31, 47.51, 35.97, 30.15, 23.34, None, None, 14.50]
    assert funnel_table(found)[4] == "| langid | language | 90 | 45.00% | 47.51 % |"
    assert funnel([]) == []


@given(st.dictionaries(st.sampled_from([*map(str, Drop), *RULE_SETS]), st.integers(0, 50)))
def test_the_last_step_of_the_filter_is_what_it_kept(reasons):
    judged = Counter({reason: count for reason, count in reasons.items() if reason in RULE_SETS})
    level = Level("filter", 1000, 1000 - judged.total(), 0, judged, Counter())
    steps = funnel([level])
    assert steps[-1].kept == level.kept
    assert [step.kept for step in steps] == sorted((step.kept for step in steps), reverse=True)


@given(st.lists(st.text(max_size=4), max_size=30))
def test_the_sample_is_the_smallest_ids_in_any_order(names):
    rows = []
    for name in names:
        smallest_ids(rows, {"id": name}, 5)
    assert [row["id"] for row in rows] == sorted(names)[:5]


@given(st.text(max_size=60))
def test_a_domain_is_found_in_any_url(text):
    assert domain_of(f"https://www.example.org/{text}") in {"example.org", "-"}
    assert isinstance(domain_of(text), str)


@given(st.text(max_size=300))
def test_a_cell_is_one_short_line_that_shows_as_it_is(text):
    cell = _cell(text)
    assert len(cell) <= 120
    assert not set(cell) & {"\n", "\r", "\t", "\x00"}
    for sign in "`*_[]<>|#":
        assert sign not in cell.replace("\\" + sign, "")


VALUES = st.lists(st.floats(0, 1e6) | st.just(math.nan), max_size=30)
RULES = st.lists(
    st.builds(Rule, st.just("g"), st.sampled_from(Drop), st.just("x"), st.sampled_from(["<", ">", "<=", ">="]), st.floats(0, 1e6)), max_size=2
)  # fmt: skip


@given(st.sampled_from(["words", "short_lines", "<&>"]), VALUES, RULES)
def test_any_scores_can_be_drawn(name, values, rules):
    column = np.array(values, dtype=float)
    drawn = ElementTree.fromstring(charts.histograms([(name, column, rules)]))
    assert drawn.attrib["viewBox"] == "0 0 1014 166"
    for node in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(node.attrib["width"]) <= 1014
        assert 0 <= float(node.attrib["height"]) <= 166
    there = column[~np.isnan(column)]
    if len(there):
        low, high = charts.bounds(there, rules, name in charts.LOGARITHMIC)
        assert low < high
        assert charts.place(low, low, high, False) == 0
        assert charts.place(high, low, high, False) == 1
    lines = charts.as_text(name, column, rules)
    assert lines[1].startswith("#### ")


def test_a_panel_counts_every_document_once():
    rule = Rule("g", "short_lines", "short_lines", ">=", 0.5)
    values = np.array([0.0, 0.1, 0.1, 0.5, 0.9])
    assert charts.share(values, rule) == 2 / 5
    parts = charts.panel("short_lines", values, [rule])
    assert any("&gt;= 0.5: 40.0%" in part for part in parts)
    assert sum(charts.GONE in part and part.startswith("<rect") for part in parts) == 2
    assert sum(charts.OURS in part and part.startswith("<rect") for part in parts) == charts.BINS
    assert (
        score_table({"short_lines": values}, ["en"] * 5, [rule])[2]
        == "| short_lines | 0.004 | 0.1 | 0.884 | short_lines >= 0.5: 2 |  |"
    )


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
    rule = Rule("length", "too_few_words", "words", "<", 2.0)
    lines = charts.as_text("words", np.array([1.0, 2.0, 3.0, np.nan]), [rule])
    assert "too_few_words: drops when < 2, 1 of 3" in lines
    bins = [line.replace("<- < 2", "") for line in lines[lines.index("```") + 1 : -1]]
    assert sum(int(line.partition(" (")[0].split()[-1]) for line in bins) == 3


def test_bins_at_the_ends_say_what_lies_beyond_them():
    values = np.array([*range(1, 201), 5000.0])
    bins = charts.as_text("words", values, [])[5:-1]
    assert len(bins) == charts.TEXT_BINS
    assert bins[0].endswith(" 19 (2 of them below, from 1)")
    assert bins[-1].endswith(" 19 (2 of them above 199, up to 5000)")
    assert not any("(" in line for line in bins[1:-1])
    assert not any("(" in line for line in charts.as_text("words", np.array([7.0, 7.0]), []))


def test_what_pages_say_reaches_no_terminal_raw(make_document, make_corpus):
    evil = "\x1b[2J\r\u202e\x9b"
    run = make_corpus([[[make_document("kept", name="a")]]])
    partition = run.segments[0].partition
    for stage, reason in (("langid", Drop.LANGUAGE), ("score", "too_few_words")):
        attempt = Attempt(run, run.task(stage, partition))
        sink = DocumentSink(attempt.store, f"{attempt.prefix}/{attempt.id}", stage, "x", SCORED)
        row = scored(make_document, "b", f"e{evil}") | {"url": f"https://b{evil}.test/"}
        sink.drop(row, reason, f"{evil} 0.9") if stage == "langid" else sink.keep(row, 1)
        done = sink.close()
        attempt.commit(done.listed(), done.counts.rows())
    text, figures = report(run, True, "r")
    assert "https://b" in text
    for shown in (text, *figures.values(), what_if(run, Filter())):
        assert not set(evil) & set(shown) - {"[", "2", "J"}
    assert charts.text(0, 0, evil).count(r"\x1b[2J\r\u202e\x9b") == 1
