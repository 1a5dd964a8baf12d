"""Instructions: a reply that follows each, and one that does not."""

import pytest

from evals.tasks.instructions import CHECKS, IFEVAL, compared, followed, language_is, parted, sentences
from evals.tasks.task import Item

CASES: list[tuple[str, dict[str, object], str, str]] = [
    ("keywords:existence", {"keywords": ["ant", "Bee"]}, "An ANT and a bee.", "An ant."),
    ("keywords:frequency", {"keyword": "ant", "frequency": 2, "relation": "at least"}, "ant Ant", "ant"),
    ("keywords:forbidden_words", {"forbidden_words": ["ant"]}, "An antler.", "An ANT."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "Zoo", "Zz"),
    ("language:response_language", {"language": "zh"}, "今天天气很好 OK", "The weather is good 今"),
    ("language:response_language", {"language": "de"}, "Das ist nicht der Hund von mir", "This is not the dog of my friend"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two", "Only 1.5 here."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n\nTwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two", "one two three"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"},
        "One.\n\nWeekend, then.",
        "One.\n\nThen weekend.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [address]", "[name] at home"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\nP. S. more", "Bye PS more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n**b**"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and b"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\nx\nSECTION 2\ny", "SECTION 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Poem of Joy>>\nx", "<< >>\nx"),
    ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. Yes", "Yes. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'Once... THE END."', "The end. No."),
    ("startend:quotation", {}, '"All of it"', '"All" of it'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "AN ANT ran", "An ANT"),
    ("change_case:english_capital", {}, "THIS IS THE DAY", "This is the day"),
    ("change_case:english_lowercase", {}, "this is the day", "This is the day"),
    ("punctuation:no_comma", {}, "One and two", "One, two"),
]  # fmt: skip


def item(*asked: tuple[str, dict[str, object]]) -> Item:
    names, values = [name for name, _ in asked], [value for _, value in asked]
    return IFEVAL.read({"key": 7, "prompt": "p", "instruction_id_list": names, "kwargs": values}, "0")


@pytest.mark.parametrize(("name", "values", "good", "bad"), CASES)
def test_each_instruction_is_followed_or_not(name: str, values: dict[str, object], good: str, bad: str) -> None:
    asked = item((name, values))
    assert followed(asked, good) == [True]
    assert followed(asked, bad) == [False]


def test_every_instruction_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(CHECKS)
    assert len(CHECKS) == 25, "as many as Zhou et al. 2023 have"


def test_a_prompt_counts_if_all_its_instructions_are_followed() -> None:
    asked = item(("punctuation:no_comma", {}), ("startend:quotation", {"unused": None}))
    graded = [IFEVAL.grade(asked, text) for text in ('"All of it"', '"One, two"', "  ")]
    assert [one.score for one in graded] == [1, 0, 0]
    assert [one.extracted for one in graded] == ["all followed", "broken: punctuation:no_comma", None]


def test_rows_that_cannot_be_checked_are_refused() -> None:
    with pytest.raises(ValueError, match="'made:up' is not known"):
        item(("made:up", {}))
    with pytest.raises(ValueError, match="as many members"):
        IFEVAL.read({"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "0")
    with pytest.raises(ValueError, match="neither"):
        compared(1, "about", 1)
    with pytest.raises(ValueError, match="no rule tells"):
        language_is("text", "xx")


MISSHAPEN: list[tuple[str, dict[str, object]]] = [
    (name, {key: value for key, value in values.items() if key != missing})
    for name, values, *_ in CASES
    for missing in values
] + [
    ("language:response_language", {"language": "xx"}),
    ("length_constraints:number_words", {"num_words": "many", "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": 3, "relation": "about"}),
    ("keywords:existence", {"keywords": ["ant", 5]}),
    ("keywords:existence", {"keywords": "ant"}),
    ("keywords:forbidden_words", {"forbidden_words": "ant"}),
    ("keywords:frequency", {"keyword": 5, "frequency": 2, "relation": "at least"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), MISSHAPEN)
def test_values_that_a_check_cannot_take_are_refused_with_the_row(name: str, values: dict[str, object]) -> None:
    """Not only when replies have been written, after hours."""
    with pytest.raises((KeyError, ValueError, TypeError, AttributeError)):
        item((name, values))


def test_languages_are_told_by_their_letters_and_words() -> None:
    assert language_is("今日は天気が良い", "ja")
    assert not language_is("今天天气很好", "ja")
    assert not language_is("Привет, my dear old friend", "ru")
    assert language_is("Привет, друг", "ru")
    assert language_is("123", "zh"), "nothing speaks against it"
    assert language_is("La casa es de los que no se van", "es")
    assert not language_is("La casa es de los que no se van", "fr")


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "vi"])
def test_a_text_without_a_known_word_or_with_as_many_of_two_languages_is_in_none(language: str) -> None:
    assert not language_is("Hello!", language)
    assert not language_is("Hello la la", language), "French, Spanish, Italian"


def test_a_short_text_in_capitals_needs_no_known_word_but_none_of_another_language() -> None:
    asked = item(("change_case:english_capital", {}))
    assert [followed(asked, text) for text in ("HELLO!", "THE END", "DER HUND IST DA", "ПРИВЕТ")] == [
        [True],
        [True],
        [False],
        [False],
    ]


def test_parts_may_be_empty_at_the_ends_alone() -> None:
    assert parted("***\nOne\n***\nTwo\n***", "***") == ["One", "Two"]
    assert parted("One\n***\n***\nTwo", "***") is None


def test_sentences_end_at_full_stops_of_any_script() -> None:
    assert [sentences(text) for text in ("One. Two! Three?", "3.5 is one", "一。二！三", "", "End... Then")] == [
        3,
        1,
        3,
        0,
        2,
    ]
