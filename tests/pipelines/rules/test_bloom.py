"""BLOOM's measures by hand and at their limits, and bad words. That they equal their definitions on any text is in test_scores."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InputError
from contract.settings.filter import Bloom, Filter
from pipelines.rules import badwords, bloom
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import Tools, bloom_scores
from pipelines.text.words import Text


def bloom_rules(language):
    """BLOOM's rules with their defaults."""
    every = rules_for(Filter(bloom=Bloom(enabled=True)), language)
    return [rule for rule in every if rule.rule_set == "bloom"]


SMALL = st.text(alphabet="ab é漢", max_size=60)


def test_repetition_by_hand():
    assert bloom.char_repetition(Text("ababab"), 2) == 3 / 5, "two distinct pairs: the most frequent one"
    assert bloom.char_repetition(Text("abcdef"), 2) == bloom.char_repetition(Text("a"), 2) == 0
    assert bloom.word_repetition(Text("A b a B c"), 2) == 2 / 4
    assert bloom.word_repetition(Text("a b c"), 5) == 0


@settings(deadline=None)  # the first call may compile
@given(SMALL, st.integers(1, 10))
def test_repetition_of_characters_is_a_share_that_nothing_unique_has(text, n):
    found = bloom.char_repetition(Text(text), n)
    assert 0 <= found <= 1
    assert (found > 0) == any(
        count > 1 for count in Counter(text[i : i + n] for i in range(len(text) - n + 1)).values()
    )


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("abcd", 0.0), ("ab 1", 0.5), ("!!!!", 1.0), ("é", 0.0), ("e\u0301", 0.0), ("नमस्ते", 0.0), ("a🙂", 0.5)],
)
def test_special_characters(text, share):
    assert bloom.special_chars(Text(text)) == share


def test_rules_at_their_limits():
    fine = {
        "char_repetition": 0.106, "word_repetition": 0.19, "special_chars": 0.4, "stop_word_fraction": 0.3,
        "bad_word_fraction": 0.01, "perplexity": 1500.0,
    }  # fmt: skip
    rules = bloom_rules("en")
    assert decide(fine, rules) is None
    for score, value, reason in (
        ("char_repetition", 0.107, "bloom_char_repetition"),
        ("word_repetition", 0.191, "bloom_word_repetition"),
        ("special_chars", 0.41, "bloom_special_chars"),
        ("stop_word_fraction", 0.29, "bloom_stop_words"),
        ("bad_word_fraction", 0.011, "bloom_flagged_words"),
        ("perplexity", 1501.0, "bloom_perplexity"),
    ):
        assert decide({**fine, score: value}, rules) == (reason, value)
    assert decide({**fine, "stop_word_fraction": 0.0}, bloom_rules("eo")) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh", "昨天下午，市政府在河边的老磨坊前举行了简短的仪式，宣布修复工程正式开始。"),
        ("ru", "Вчера городские власти объявили начало реставрации старой мельницы возле реки."),
        ("de", "Gestern begann die Sanierung der alten Mühle am Fluss."),
    ],
)
def test_stop_words_are_asked_only_of_a_language_with_a_full_list(language, text):
    assert bloom_scores(Text(text, language), Tools())["stop_word_fraction"] is None
    assert "stop_word_fraction" not in {rule.score for rule in bloom_rules(language)}
    english = "It was not that they had to, but that none of us would have done it for them."
    assert bloom_scores(Text(english, "en"), Tools())["stop_word_fraction"] > 0.8


def test_bad_words_match_whole_words_and_phrases():
    listed = badwords.BadWords.build(["Darn", "two words", "two"], "en")
    text = "Darn! darned, (darn) two  words. Two"
    assert listed.count(Text(text)) == 4
    zh = badwords.BadWords.build(["坏话"], "zh")
    assert zh.count(Text("这是坏话坏话。", "zh")) == 2


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.sampled_from(["darn", "two", "words", "Two words.", "ok,", "(DARN)", "\n"]), max_size=12))
def test_bad_words_are_counted_where_a_phrase_begins(parts):
    listed = badwords.BadWords.build(["darn", "two words", "two"], "en")
    text = " ".join(parts)
    bare = [word.strip(".,()").lower() for word in text.split()]
    expected = bare.count("darn") + bare.count("two")  # the longer phrase begins where the shorter does
    assert listed.count(Text(text)) == expected


def test_signs_that_stand_for_letters_are_not_read_as_the_letters_left():
    listed = badwords.BadWords.build(["a$$", "qi'yah'"], "en")
    assert listed.count(Text("a b a.")) == 0
    assert listed.count(Text("So: qi'yah'!")) == 1


@pytest.mark.parametrize("entry", ["a$$", "f***", "@ss", "s&m", "two f*** words", "qi'yah'", "_x_", "(darn)"])
def test_a_bad_word_matches_itself_alone_and_in_a_sentence(entry):
    listed = badwords.BadWords.build([entry], "en")
    assert listed.count(Text(entry, "en")) == 1
    assert listed.count(Text(f"What, “{entry.upper()}”! And ({entry}).", "en")) == 2
    assert listed.count(Text("what a kind f of word", "en")) == 0


def test_signs_around_a_bad_word_do_not_hide_it():
    assert badwords.BadWords.build(["darn"], "en").count(Text("**darn**, _darn_ #darn", "en")) == 3


def test_lists_are_loaded_by_language(tmp_path):
    (tmp_path / "en").write_text("darn\n\ntwo words\n")
    (tmp_path / "de.txt").write_text("mist\n")
    (tmp_path / "yue").write_text("x\n")
    for other in ("LICENSE", "x", "list", "EN", "d3"):
        (tmp_path / other).write_text("no list")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "fr").write_text("zut\n")
    lists = badwords.load_lists(str(tmp_path))
    assert sorted(lists) == ["de", "en", "yue"]
    assert lists["de"].count(Text("Mist, Mist")) == 2
    with pytest.raises(InputError, match=r"score\.bad_words: .*no list"):
        badwords.load_lists(str(tmp_path / "absent"))
