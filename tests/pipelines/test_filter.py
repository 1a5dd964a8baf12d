"""filter: the order of the rules, what a recipe can switch, and the map half of the chain on real pages."""

import re
import shutil
from collections import Counter

import pytest

from contract.documents import parts_of
from contract.errors import RecipeError
from contract.manifest import need
from contract.recipe import StageSettings, parse
from contract.schema import SCORED
from contract.settings.corpus import C4Lines, Score
from contract.settings.filter import C4, RULE_SETS, Filter
from pipelines.filter import check
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import Tools, clean_and_score

SENTENCES = [
    "The river bends twice before it meets the old mill on the hill.",
    "Nobody has ground any corn there since my grandmother was young.",
    "In spring the children of both villages come to fish below the weir.",
    "They have to be home when the bell of the small church begins to ring.",
    "My uncle once found a silver coin between the stones of the wheel pit.",
    "He showed it to the teacher, who sent it with a letter to the city.",
]
GOOD = "\n".join(SENTENCES)
SHORT = re.sub(r"((?:\S+ ){3}\S+) ", r"\1.\n", " ".join(SENTENCES))  # four words a line


def judge(text, language, settings, score=None):
    kept, scores = clean_and_score(text, language, score or Score(), Tools())
    return kept, decide(scores, rules_for(settings, language))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        (GOOD + "\nHome\nLogin\nContact\nMap\nNews", "lines_removed"),
        ("\n".join(SENTENCES[:3]), "too_few_words"),
        ("\n".join([*SENTENCES, *SENTENCES]), "duplicate_lines"),
        (GOOD.replace("river", "river #####").replace("mill", "mill #####"), "hash_ratio"),
        (GOOD.replace(".", ""), "line_punctuation"),
        (SHORT, "short_lines"),
    ],
)
def test_each_rule_set_has_its_say(text, reason):
    kept, verdict = judge(text, "en", Filter())
    assert (verdict[0] if verdict else None) is reason
    if reason is None:
        assert kept == text


def test_lines_are_corrected_in_what_is_kept():
    kept, verdict = judge(
        f"Sign in {GOOD}\nNews\n{GOOD.replace('river', 'stream').replace('mill', 'tower')}", "en", relaxed()
    )
    assert verdict is None
    assert "News" not in kept.split("\n")


def relaxed():
    values = Filter().model_dump()
    values["gopher_repetition"]["enabled"] = values["fineweb"]["enabled"] = False
    return Filter.model_validate(values)


def test_c4_is_off_until_a_recipe_switches_it_on():
    text = GOOD + "\nA set {x} of things that the teacher wrote down."
    assert judge(text, "en", Filter())[1] is None
    with_c4 = Filter(c4=C4(enabled=True))
    assert judge(text, "en", with_c4)[1] == ("c4_curly_bracket", 1)
    c4_lines = Score(c4_lines=C4Lines(enabled=True))
    kept, verdict = judge(GOOD + "\nNo end to this line of words", "en", with_c4, c4_lines)
    assert (kept, verdict) == (GOOD, None)


def test_nothing_switched_on_changes_nothing():
    off = {name: {"enabled": False} for name in ("gopher_repetition", "gopher_quality", "c4", "fineweb", "bloom")}
    settings = Filter.model_validate({"min_words": 0, **off})
    untouched = Score.model_validate({"lines": {"enabled": False}, "mask": []})
    for text in ("", "x", "Home\n\n\n{}", GOOD, "write to a@b.example"):
        assert judge(text, None, settings, untouched) == (text, None)


@pytest.mark.parametrize(
    "recipe",
    [
        "langid: {languages: [en, de, zh]}",
        "langid: {languages: [eo]}\nfilter: {gopher_quality: {min_stop_words: 0}}",
        "langid: {languages: [eo]}\nfilter: {gopher_quality: {enabled: false}}",
    ],
)
def test_a_language_needs_stop_words_only_where_the_rule_is_asked(recipe):
    check(StageSettings(parse(recipe, "test"), "filter"))


def test_a_language_without_stop_words_is_refused_by_name():
    with pytest.raises(RecipeError, match="no stop words for eo"):
        check(StageSettings(parse("langid: {languages: [en, eo]}", "test"), "filter"))


def run_manifests(run, stage):
    return [need(run.store, run.task(stage, segment.partition)) for segment in run.segments]


def test_a_new_threshold_decides_again_and_measures_nothing(resolve_run, tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    one = resolve_run(tmp_path / "crawl", name="one")
    two = resolve_run(tmp_path / "crawl", {"filter.fineweb.max_short_line_fraction": 0.5}, name="two")
    name = one.segments[0].partition
    assert one.task("score", name).fingerprint == two.task("score", name).fingerprint
    assert one.task("filter", name).fingerprint != two.task("filter", name).fingerprint


def test_what_is_kept_and_what_goes_is_counted(scored_run, make_document, run_stage, rows_of, without_spark):
    rows = [make_document(text, name=text) for text in ("a b c é", "a b", "d e f", "g")]
    run = scored_run([rows[:3], rows[3:]], {"filter.min_words": 3, "filter.max_words": 5})
    (scores,) = run_stage(run, "filter")
    assert [row["text"] for row in rows_of(run.store, [scores], "documents")] == ["a b c é", "d e f"]
    dropped = rows_of(run.store, [scores], "drops")
    assert [(row["snippet"], row["reason"], row["value"]) for row in dropped] == [
        ("a b", "too_few_words", "2"), ("g", "too_few_words", "1"),
    ]  # fmt: skip
    assert (scores.rows.read, scores.rows.kept, scores.rows.bytes_read, scores.rows.bytes_kept) == (4, 2, 17, 13)
    own = [file.kind for file in scores.files if file.path.startswith(scores.prefix)]
    assert own == ["index", "drops", "steps", "places", "addresses"], "no text is written again"
    steps = {(row["setting"], row["step"]): row for row in rows_of(run.store, [scores], "steps")}
    assert {key[1]: (row["documents"], row["alone"], row["words"]) for key, row in steps.items() if key[0] == "min_words"} == {
        1: (1, 1, 1), 2: (1, 1, 2), 3: (1, 1, 3), 4: (1, 1, 4),
    }  # fmt: skip
    assert [one.hex() for one in steps["max_words", 4]["ids"]] == [rows[0]["id"]]


def test_small_parts_are_judged_together_and_large_ones_alone(
    scored_run, make_document, run_stage, rows_of, without_spark, monkeypatch
):
    rows = [make_document(" ".join(["word"] * (at % 7 + 1)), name=str(at), language="en") for at in range(40)]
    monkeypatch.setattr("pipelines.score.GROUP_ROWS", 10)
    run = scored_run([rows[at : at + 10] for at in range(0, 40, 10)], {"filter.min_words": 3})
    found = []
    for least, most, tables in ((1 << 16, 1 << 18, 1), (1, 1 << 18, 2), (1, 10, 4)):  # on two cores
        monkeypatch.setattr("pipelines.filter.PART_ROWS", least)
        monkeypatch.setattr("pipelines.filter.STEP_ROWS", most)
        run.store.delete(run.task("filter", run.segments[0].partition).prefix)
        [done] = run_stage(run, "filter")
        assert [len(done.of(kind)) for kind in ("steps", "drops")] == [tables, tables]
        assert len(parts_of(done)) == 4
        counts = Counter()
        for row in rows_of(run.store, [done], "steps"):
            counts[row["setting"], row["step"]] += row["alone"]
        found.append((done.rows, counts, [row["id"] for row in rows_of(run.store, [done], "documents")]))
    assert found[0] == found[1] == found[2]
    assert found[0][2] == [row["id"] for at, row in enumerate(rows) if at % 7 >= 2]


def test_the_map_half_on_real_pages(data_dir, tmp_path, resolve_run, run_stage, rows_of):
    (tmp_path / "crawl").mkdir()
    shutil.copy(data_dir / "html_gold" / "mediacloud2020_multilang.dev.warc.gz", tmp_path / "crawl")
    run = resolve_run(tmp_path / "crawl", {"langid.languages": ["en", "es", "fr"]})
    kept = None
    for stage in ("crawl", "extract", "langid", "score", "filter"):
        [manifest] = run_stage(run, stage)
        rows = manifest.rows
        assert rows.read == rows.kept + rows.dropped
        assert kept is None or rows.read == kept, f"{stage} did not read what came before it"
        assert rows.dropped == sum(file.rows for file in manifest.of("drops"))
        left = sum(part.rows for part in parts_of(manifest)) + sum(file.rows for file in manifest.of("pages"))
        assert rows.kept == left
        kept = rows.kept
    documents = rows_of(run.store, [manifest], "documents")
    assert 15 <= len(documents) <= 60
    assert {document["language"] for document in documents} == {"en", "es", "fr"}
    scored = {row["id"]: row for row in rows_of(run.store, run_manifests(run, "score"), "documents")}
    assert set(next(iter(scored.values()))) == set(SCORED.names)
    for document in documents:
        row = scored[document["id"]]
        assert decide(row, rules_for(run.recipe.filter, document["language"])) is None
        assert document["text"] == row["text"]
        assert row["words"] >= 50
        assert row["removed_word_fraction"] <= 0.05
        assert document["language_probability"] >= 0.65
    assert len(document["id"]) == 32
    for drop in rows_of(run.store, [manifest], "drops"):
        assert drop["reason"] in RULE_SETS
        assert drop["value"]
