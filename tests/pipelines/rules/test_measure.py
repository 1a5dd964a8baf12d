"""Every score against a plain reading of its definition: character by character, word by word, in Python that hides nothing."""

import glob
import json
import math
import re
import unicodedata
from collections import Counter
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.scores import SCORES
from contract.settings.corpus import C4Lines, LineCorrection, Score
from contract.settings.filter import RULES
from pipelines.rules.lines import COUNTER, PHRASES, Corrected, correct
from pipelines.rules.measure import Tools, check_names, clean_and_score, extracted_scores, kept_scores, perplexity
from pipelines.rules.sentences import BEFORE_NAME, SHORTENED
from pipelines.text.characters import AFTER_STOPS, BULLETS, LINE_ENDS, PUNCTUATION, UNSPACED
from pipelines.text.languages import UNITS, unit
from pipelines.text.stopwords import FUNCTION_WORDS, STOP_WORDS
from pipelines.text.words import Text, split_words

WORD = re.compile(rf"[{UNSPACED}][^\w\s{UNSPACED}]*|[^\s{UNSPACED}]+")
NO_LINES = LineCorrection(enabled=False)
PLAIN = Score(lines=NO_LINES, mask=())


def plain_words(text):
    """(start, end) of every word."""
    return [match.span() for match in WORD.finditer(text)]


def plain_lines(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


def plain_paragraphs(text):
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def plain_duplicates(parts):
    """Parts that stood before already: how many, and their characters."""
    again = [part for index, part in enumerate(parts) if part in parts[:index]]
    return len(again), sum(map(len, again))


def plain_top(text, n):
    """The most frequent n-gram's characters, of several the longest as it first stands; once is nothing."""
    spans = plain_words(text)
    grams = [tuple(text[a:b] for a, b in spans[i : i + n]) for i in range(len(spans) - n + 1)]
    most = max(Counter(grams).values(), default=0)
    if most < 2:
        return 0
    firsts = {gram: grams.index(gram) for gram, count in Counter(grams).items() if count == most}
    return most * max(spans[i + n - 1][1] - spans[i][0] for i in firsts.values())


def plain_covered(text, n):
    """Characters under every n-gram that stood before, each once."""
    spans, seen, marked = plain_words(text), set(), set()
    for i in range(len(spans) - n + 1):
        gram = tuple(text[a:b] for a, b in spans[i : i + n])
        if gram in seen:
            marked.update(range(spans[i][0], spans[i + n - 1][1]))
        seen.add(gram)
    return len(marked)


def plain_char_repetition(text, n=10):
    counts = sorted(Counter(text[i : i + n] for i in range(len(text) - n + 1)).values(), reverse=True)
    largest = min(math.isqrt(len(counts)), sum(count > 1 for count in counts))
    return sum(counts[:largest]) / sum(counts) if largest else 0.0


def plain_word_repetition(text, n):
    lowered = text.lower()
    words = [lowered[a:b] for a, b in plain_words(lowered)]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    return sum(counts[gram] > 1 for gram in grams) / max(len(grams), 1)


def lettered(text):
    return sum(one.isalpha() or unicodedata.category(one).startswith("M") for one in text)


def plain_repetition(text, size):
    characters = max(len(text), 1)
    made = {}
    for name, parts in (("line", plain_lines(text)), ("paragraph", plain_paragraphs(text))):
        count, repeated = plain_duplicates(parts)
        made |= {f"duplicate_{name}s": count / max(len(parts), 1), f"duplicate_{name}_chars": repeated / characters}
    made |= {f"top_{n}gram": plain_top(text, n * size) / characters for n in (2, 3, 4)}
    return made | {f"duplicate_{n}grams": plain_covered(text, n * size) / characters for n in range(5, 11)}


def plain_quality(text, language, size):
    words, lines = [text[a:b] for a, b in plain_words(text)], plain_lines(text)
    lowered = text.lower()
    bare = [lowered[a:b].strip(PUNCTUATION) for a, b in plain_words(lowered)]
    total, rows = max(len(words), 1), max(len(lines), 1)
    known, function_words = STOP_WORDS.get(language), FUNCTION_WORDS.get(language)
    dots = text.count("...") + text.count("…")
    return {
        "words": len(words) / size,
        "mean_word_chars": sum(map(len, words)) / total,
        "hash_ratio": text.count("#") / (total / size),
        "ellipsis_ratio": dots / (total / size),
        "bullet_lines": sum(line[0] in BULLETS for line in lines) / rows,
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines) / rows,
        "alpha_words": sum(lettered(word) > 0 for word in words) / total,
        "stop_words": None if known is None else len(known & set(bare)),
        "lorem_ipsum": lowered.count("lorem ipsum"),
        "curly_brackets": text.count("{"),
        "long_lines": sum(len(line) * size >= 200 for line in lines),
        "special_chars": 1 - lettered(text) / len(text) if text else 0.0,
        "stop_word_fraction": None if function_words is None else sum(word in function_words for word in bare) / total,
        "punctuated_lines": sum(line[-1] in LINE_ENDS for line in lines) / rows,
        "kept_duplicate_line_chars": plain_duplicates(lines)[1] / max(len(text), 1),
        "short_lines": sum(len(line) * size < 30 for line in lines) / rows,
        "sentences": plain_sentences(text),
    }


def plain_sentences(text):
    stops = re.finditer(rf"[.!?]+(?=[\s{re.escape(AFTER_STOPS)}]|$)|[。！？؟۔।]+", text)
    return sum(not plain_abbreviation(text, stop) for stop in stops)


def plain_abbreviation(text, stop):
    follows = re.compile(r"[^\S\n]+(\S)").match(text, stop.end())
    before = text[max(0, stop.start() - 16) : stop.start()]
    short = before[len(before) - sum(1 for _ in takewhile(lambda one: one.isalpha() or one == ".", before[::-1])) :]
    if stop[0] != "." or not follows or not short:
        return False
    if len(short) == 1 and short.isupper():
        return short != "I"
    return short in BEFORE_NAME or (("." in short or short in SHORTENED) and not follows[1].isupper())


def plain_scores(text, language):
    """What `measure` says of a text that no correction changes."""
    size = unit(language)
    return {
        **plain_repetition(text, size),
        **plain_quality(text, language, size),
        "char_repetition": plain_char_repetition(text),
        "word_repetition": plain_word_repetition(text, 5 * size),
        "kept_words": len(plain_words(text)) / size,
        "removed_word_fraction": 0.0,
        "masked": 0,
        **dict.fromkeys(("bad_words", "bad_word_fraction", "perplexity")),
    }


def plain_correct(text, rules, size):
    """RefinedWeb's corrections, line by line."""
    kept, total, left = [], 0, 0
    for line in text.split("\n"):
        words = split_words(line)
        total += len(words)
        letters, upper = sum(map(str.isalpha, line)), sum(map(str.isupper, line))
        if not words:
            kept.append("")
            continue
        here = size if re.search(f"[{UNSPACED}]", line) else 1
        if len(words) <= here or upper > rules.max_upper_case_fraction * letters:
            continue
        numerals = re.fullmatch(r"[^\W_]+", re.sub(r"[\s.,:;/|()\[\]\-–—·•…«»‹›'’]", "", line))
        if COUNTER.fullmatch(line) or (numerals and not letters and any(map(str.isdigit, line))):
            continue
        if len(words) <= rules.short_line_words * here:
            shorter = line
            for phrase in PHRASES:
                shorter = phrase.sub("", shorter)
            line = line if shorter == line else shorter.strip()
        if split_words(line):
            kept.append(line)
            left += len(split_words(line))
    return Corrected(re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), total, total - left)


PIECES = st.sampled_from(
    [
        "the ", "and ", "The, ", "a", "bb ", "ß", "İ", "ΑΣ ", "é", "e\u0301", "漢", "字。", "かな、", "が", "ไทย", "ทำ", "हिन्दी ", "한국어 ",
        "\n", "\n\n", " \n \n", "\r\n", "\t", "\u2028", "\x1c", "\u3000", "...", "…", "....", "#", "- ", "•", "{", "lorem ipsum ", "1.5 ",
        "One. ", 'Two!" ', "x?!", "3 likes\n", "1,2K Followers\n", "Home\n", "BUY NOW\n", "12 34\n", "2 + 2 = 4\n", "1 | 2\n", "Hello world\n", "½ ²\n", "\nsign in ", "Read more...\n",
        "items in cart", "\U0001f600", "\ud800", "\U000e0041", "一二三四五六七八九十", "one two three four five six ",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=120) | st.text(alphabet="ab \n", max_size=200)
LANGUAGES = st.sampled_from(["en", "de", "zh", "ja", "th", "ko", "eo", None])


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (value if value is None else pytest.approx(value, abs=1e-12)), name


@settings(max_examples=400, deadline=None)
@given(TEXTS, LANGUAGES)
def test_every_score_equals_its_plain_definition(text, language):
    kept, scores = clean_and_score(text, language, PLAIN, Tools())
    assert kept == text
    equal(scores, plain_scores(text, language or "en"))
    assert set(scores) == set(SCORES)


@settings(max_examples=300, deadline=None)
@given(TEXTS, LANGUAGES)
def test_line_corrections_equal_their_plain_definition(text, language):
    assert correct(Text(text, language), LineCorrection()) == plain_correct(text, LineCorrection(), unit(language))


@settings(max_examples=200, deadline=None)
@given(TEXTS, LANGUAGES)
def test_words_are_what_the_pattern_finds(text, language):
    document = Text(text, language)
    spans = list(zip(document.words.starts.tolist(), document.words.ends.tolist(), strict=True))
    assert spans == plain_words(text)
    assert [text[a:b] for a, b in spans] == split_words(text)
    assert len({*document.words.keys.tolist()}) == len({text[a:b] for a, b in spans})


@pytest.mark.parametrize("text", ["", "\n", "\n\n\n", " \t ", "\0", "a", "漢", "\ud800"])
def test_texts_of_almost_nothing(text):
    equal(clean_and_score(text, "en", PLAIN, Tools())[1], plain_scores(text, "en"))


def real_texts(data_dir):
    """Main texts of a benchmark's pages, in two languages of real sentences, and pages of one line."""
    pages = json.loads((data_dir / "html_gold" / "aeb_ground-truth.dev.json").read_text()).values()
    yield from (page["articleBody"] for page in list(pages)[:40])
    for file in sorted(glob.glob(str(data_dir / "text" / "llama-factory" / "c4_demo.jsonl"))):
        with open(file) as rows:
            yield from (row["text"] for row in map(json.loads, list(rows)[:60]))


def test_every_score_of_real_pages_equals_its_plain_definition(data_dir):
    texts = list(real_texts(data_dir))
    assert len(texts) >= 90
    for text in texts:
        equal(clean_and_score(text[:6000], "en", PLAIN, Tools())[1], plain_scores(text[:6000], "en"))
        assert correct(Text(text, "en"), LineCorrection()) == plain_correct(text, LineCorrection(), 1)


def test_repetition_and_quality_are_measured_before_lines_go_and_fineweb_after():
    menu = "Home\nNEWS\n"
    body = "The river bends twice before it meets the old mill and the weir."
    kept, scores = clean_and_score(menu * 3 + body, "en", Score(), Tools())
    assert kept == body
    assert scores["duplicate_lines"] == 4 / 7
    assert (scores["words"], scores["kept_words"]) == (19, 13)
    assert scores["removed_word_fraction"] == 6 / 19
    assert scores["kept_duplicate_line_chars"] == 0
    assert scores["punctuated_lines"] == 1
    with_c4 = Score(c4_lines=C4Lines(enabled=True))
    kept, scores = clean_and_score(f"{body}\nNo end to this line", "en", with_c4, Tools())
    assert (kept, scores["words"], scores["kept_words"], scores["punctuated_lines"]) == (body, 18, 13, 1)


def test_scripts_without_spaces_count_words_of_their_own_size():
    text = "河流在这里转弯，" * 2  # seven words of two characters; the commas belong to the character before
    scores = clean_and_score(text, "zh", PLAIN, Tools())[1]
    assert scores["words"] == 7
    assert scores["alpha_words"] == 1
    assert scores["duplicate_5grams"] == 0, "five words are ten characters"
    assert scores["short_lines"] == 0, "16 characters are as long as 32"
    assert clean_and_score(text, "en", PLAIN, Tools())[1]["duplicate_5grams"] == 8 / 16
    assert set(UNITS) >= {"zh", "ja", "th"}


class FakeModel:
    """Stands in for kenlm.Model, whose `perplexity` takes words with spaces between."""

    def perplexity(self, sentence):
        return float(len(sentence))


def test_perplexity_is_asked_of_bare_words_in_lower_case():
    assert perplexity(Text('He said: "No!" -- and left.'), FakeModel()) == len("he said no and left")
    assert perplexity(Text(" -- "), FakeModel()) == 0.0
    scores = clean_and_score("One two", "en", Score(), Tools(perplexity=FakeModel()))[1]
    assert scores["perplexity"] == 7


def test_each_score_is_measured_on_the_text_that_its_rule_names():
    extracted, kept = extracted_scores(Text("A b."), Score(), Tools()), kept_scores(Text("A b."), Score())
    assert set(extracted) == {rule.score for rule in RULES if rule.measured_on == "extracted text"}
    assert set(kept) - {"kept_words"} == {rule.score for rule in RULES if rule.measured_on == "kept text"}


def test_a_score_without_a_measure_or_a_rule_is_named():
    check_names(clean_and_score("", None, Score(), Tools())[1])
    with pytest.raises(ValueError, match=r"no measure for shouting: contract/settings/filter\.py declares"):
        check_names(SCORES, (*SCORES, "shouting"))
    with pytest.raises(ValueError, match=r"no rule for shouting: pipelines/rules/measure\.py measures"):
        check_names((*SCORES, "shouting"))
