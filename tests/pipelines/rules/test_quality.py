"""Each quality rule on a text that breaks it alone, and on one that stands exactly at its limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.settings.corpus import C4Lines
from contract.settings.filter import C4, Filter, GopherQuality
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.quality import (
    c4_lines,
    c4_scores,
    fineweb_scores,
    gopher_scores,
    line_marks,
    mc4_scores,
)
from pipelines.rules.sentences import count_sentences
from pipelines.text.languages import unit
from pipelines.text.stopwords import STOP_WORDS
from pipelines.text.words import Text, split_words

GOPHER, C4_LINES = GopherQuality(), C4Lines(enabled=True)


def rules_of(rule_set, settings, language="en"):
    return [rule for rule in rules_for(settings, language) if rule.rule_set == rule_set]


def judge_gopher(document, language, settings):
    return decide(
        gopher_scores(Text(document, language)),
        rules_of("gopher_quality", Filter(gopher_quality=settings), language),
    )


PLAIN = "the house and garden " * 5  # 20 words


@pytest.mark.parametrize(
    ("count", "found"), [(49, ("too_few_words", 49)), (50, None), (60, None), (61, ("too_many_words", 61))]
)
def test_length_in_words(count, found):
    assert decide({"words": count}, rules_for(Filter(min_words=50, max_words=60), "en")) == found
    assert gopher_scores(Text("word " * count))["words"] == count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PLAIN, None),
        ("the of a b c d", ("mean_word_length", pytest.approx(9 / 6))),
        ("the and mediterranean constantinople", None),
        ("thethethethe andandandand", ("mean_word_length", 12)),
        ("##" + PLAIN, None),  # 2 in 20 words: at the limit
        ("###" + PLAIN, ("hash_ratio", 0.15)),
        ("..." + "…" + PLAIN, None),
        ("......" + "…" + PLAIN, ("ellipsis_ratio", 0.15)),
        ("- the house and the garden\n" * 9 + "and that", None),
        ("- the house and the garden\n" * 10 + "• and that garden", ("bullet_lines", 1.0)),
        ("and the long house...\n" * 3 + "and the long house\n" * 7, None),
        ("and the very long house…\n" * 4 + "and the very long house\n" * 6, ("ellipsis_lines", 0.4)),
        ("the house and garden 2024", None),  # 4 of 5 words
        ("the house and 12345 2024", ("few_alpha_words", 0.6)),
        ('The house, "and" garden', None),
        ("The house the garden the", ("few_stop_words", 1)),
        ("", ("mean_word_length", 0.0)),
    ],
)
def test_gopher(text, found):
    assert judge_gopher(text, "en", GOPHER) == found


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Der Fluss macht hier eine Biegung, und die alte Mühle steht nicht mehr."),
        ("fr", "La rivière fait ici un coude et le vieux moulin est dans la vallée."),
        ("es", "El río hace aquí una curva y el viejo molino no está en el valle."),
        ("it", "Il fiume fa qui una curva e il vecchio mulino non è nella valle."),
        ("pt", "O rio faz aqui uma curva e o velho moinho não está no vale."),
        ("pl", "Rzeka robi tu zakręt i stary młyn nie stoi w dolinie na górze."),
        ("ru", "Река делает здесь поворот, и старая мельница не стоит в долине."),
        ("zh", "河流在这里转弯，古老的磨坊不在山谷里了。"),
        ("ja", "川はここで曲がり、古い水車小屋はもう谷にはない。"),
        ("ko", "강은 여기서 굽이치고 그 오래된 방앗간은 더 이상 골짜기에 있는 것이 아니다 및"),
    ],
)
def test_stop_words_are_the_documents_own(language, text):
    assert judge_gopher(text, language, GOPHER) is None
    foreign = "ru" if language != "ru" else "de"
    found = judge_gopher(text, foreign, GOPHER.model_copy(update={"min_mean_word_chars": 0}))
    assert found is not None
    assert found[0] == "few_stop_words"


def test_english_stop_words_are_gophers():
    assert STOP_WORDS["en"] == {"the", "be", "to", "of", "and", "that", "have", "with"}
    assert all(len(words) >= 8 for words in STOP_WORDS.values())


def test_a_language_without_stop_words_is_not_judged_by_them():
    assert judge_gopher("vorto frazo libro domo", "eo", GOPHER) is None


def test_words_of_scripts_without_spaces_are_characters():
    assert split_words("漢字 and kana かな。") == ["漢", "字", "and", "kana", "か", "な。"]
    assert split_words("漢字ok") == ["漢", "字", "ok"]
    assert split_words("plain  text\nhere") == ["plain", "text", "here"]


def test_c4_lines():
    text = (
        "A sentence that stays here.[1]\n"
        "No terminal punctuation here\n"
        "Too short.\n"
        "Please enable Javascript in your browser.\n"
        "By staying you accept our cookie policy.\n"
        f"One long {'x' * 1001} word goes.\n\n\n\n"
        'He said "this stays too!"'
    )
    assert c4_lines(text, C4_LINES) == 'A sentence that stays here.\n\nHe said "this stays too!"'
    assert c4_lines("no end here", C4_LINES.model_copy(update={"terminal_punctuation": False})) == "no end here"


@pytest.mark.parametrize(
    ("text", "lines"), [("..", 0), ("...", 1), ("....", 1), ("…", 1), ("so...\nand on", 1), ("a\n..\nb.", 0)]
)
def test_a_line_ends_in_an_ellipsis_where_its_own_last_three_characters_are_dots(text, lines):
    assert line_marks(Text(text))[1] == lines


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("Two words.", ""),
        ("Now three words.", "Now three words."),
        (f"A long {'x' * 997}ed.", f"A long {'x' * 997}ed."),  # a word of 1000 characters
        (f"A long {'x' * 998}ed.", ""),
        ("It ends so well...", ""),  # an ellipsis ends no sentence, as in C4's released code
        ("It ends so well…", ""),
        ("Is this the end?", "Is this the end?"),
        ("What an end this is!", "What an end this is!"),
        ("Read the terms of use.", ""),
        ("Read our privacy policy first.", ""),
        ("This site uses cookies daily.", ""),
        ("We make use of cookies.", ""),
        ("We use cookies for cakes.", ""),
        ("The JavaScript is disabled here.", ""),
        ("The mill[1] stood here[23] once.[edit]", "The mill stood here once."),
        ("It was old.[citation needed]", "It was old."),
        ("An array[i] stays [here].", "An array[i] stays [here]."),
        ("河流在这里。", ""),  # six characters: five and their full stop are two words and a half
        ("河流在这里转。", "河流在这里转。"),
    ],
)
def test_c4_judges_one_line(line, left):
    assert c4_lines(line, C4_LINES, unit("zh" if "河" in line else "en")) == left


@given(
    st.lists(
        st.sampled_from(
            ["One two three.", "No end of it", "Short.", "", "Enable javascript now please.", "What[1] is this?"]
        ),
        max_size=10,
    )
)
def test_c4_keeps_lines_as_they_are_and_judging_again_changes_nothing(lines):
    once = c4_lines("\n".join(lines), C4_LINES)
    assert c4_lines(once, C4_LINES) == once
    assert set(once.split("\n")) <= {"One two three.", "What is this?", ""}
    assert once.count("One two three.") == lines.count("One two three.")
    assert "\n\n\n" not in once


def test_mc4_counts_lines_of_two_hundred_characters():
    text = "\n".join(["x" * 200, "y" * 199, " " + "z" * 200 + " "])
    assert mc4_scores(Text(text), 200) == {"long_lines": 2}
    assert mc4_scores(Text("漢" * 100 + "\n" + "漢" * 99, "zh"), 200) == {"long_lines": 1}


def test_c4_documents():
    assert c4_scores(Text("All of it: Lorem IPSUM dolor.")) == {"lorem_ipsum": 1, "curly_brackets": 0}
    assert c4_scores(Text("if (x) { y }")) == {"lorem_ipsum": 0, "curly_brackets": 1}
    rules = rules_of("c4", Filter(c4=C4(enabled=True)))
    assert decide({"lorem_ipsum": 1, "curly_brackets": 1, "sentences": 9}, rules) == ("c4_lorem_ipsum", 1)
    assert decide({"lorem_ipsum": 0, "curly_brackets": 1, "sentences": 9}, rules) == ("c4_curly_bracket", 1)
    assert decide({"lorem_ipsum": 0, "curly_brackets": 0, "bad_words": 1}, rules) == ("c4_bad_words", 1)
    assert decide({"bad_words": None, "sentences": 5}, rules) is None, "what was not measured never drops"
    assert decide({"sentences": 4}, rules) == ("c4_too_few_sentences", 4)
    assert count_sentences(Text("One. Two! Three? Four... v1.2 is one.")) == 5
    assert count_sentences(Text("One. Two! Three? It costs 1.50 today.")) == 4


LONG = "a line that is certainly longer than thirty characters"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([f"{LONG} {n}." for n in range(10)], None),
        ([f"{LONG} 0."] + [f"{LONG} {n}" for n in range(1, 25)], ("line_punctuation", 0.04)),
        ([f"{LONG} {n}." for n in range(3)] + [f"{LONG} {n}" for n in range(3, 25)], ("line_punctuation", 0.12)),
        ([f"{LONG} {n}." for n in range(4)] + [f"{LONG} {n}" for n in range(4, 25)], None),
        ([f"{LONG}."] * 2 + [f"{LONG} {n}." for n in range(5)], ("fineweb_duplicate_line_chars", None)),
        ([f"short {n}." for n in range(67)] + [f"{LONG} {n}." for n in range(33)], ("short_lines", 0.67)),
        ([f"short {n}." for n in range(66)] + [f"{LONG} {n}." for n in range(34)], None),
        (["x" * 29 + ".", "y" * 30 + "."], None),  # one of exactly thirty characters is not short
        ([], ("line_punctuation", 0.0)),
    ],
)
def test_fineweb(lines, found):
    text = "\n".join(lines)
    answer = decide(fineweb_scores(Text(text), 30), rules_of("fineweb", Filter()))
    if found and found[1] is None:
        found = found[0], pytest.approx((len(LONG) + 1) / len(text))
    assert answer == found
