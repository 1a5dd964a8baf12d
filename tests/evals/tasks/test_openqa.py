"""Questions with short answers."""

import pytest

from evals.tasks.openqa import NATURAL_QUESTIONS, TRIVIAQA, TYDIQA, short_answer, squad_rows


def test_natural_questions_match_a_reference_exactly() -> None:
    item = NATURAL_QUESTIONS.read({"question": "when", "answer": ["14 December 1972 UTC", "December 1972"]}, "0")
    graded = [
        NATURAL_QUESTIONS.grade(item, text) for text in ("december 1972.", "The answer is December, 1972", "1972", "")
    ]
    assert [one.score for one in graded] == [1, 1, 0, 0]
    assert graded[3].extracted is None


def test_trivia_has_aliases_in_either_shape() -> None:
    published = TRIVIAQA.read(
        {"Question": "Who?", "QuestionId": "q1", "Answer": {"Value": "The Sun", "Aliases": ["Sol"]}}, "0"
    )
    hub = TRIVIAQA.read(
        {"question": "Who?", "question_id": "q1", "answer": {"value": "The Sun", "aliases": ["Sol"]}}, "0"
    )
    assert published == hub
    assert (published.id, published.source, published.answers) == ("q1", "q1", ("The Sun", "Sol"))
    assert TRIVIAQA.read({"question": "Who?", "answer": {"value": "Sun", "aliases": None}}, "f/7").id == "f/7"
    assert [TRIVIAQA.grade(hub, text).score for text in ("sun", "Sol\nQuestion: next", "moon")] == [1, 1, 0]


@pytest.mark.parametrize(
    "answer", [{}, {"Aliases": ["Sol"]}, {"Value": None}, {"Value": " "}, {"value": None, "aliases": ["Sol"]}]
)
def test_trivia_without_its_value_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError), match=r"value|no answer"):
        TRIVIAQA.read({"Question": "Who?", "Answer": answer}, "0")


@pytest.mark.parametrize("answers", [[], [None], [""], ""])
def test_a_question_without_an_answer_is_refused(answers: object) -> None:
    with pytest.raises(ValueError, match="no answer"):
        NATURAL_QUESTIONS.read({"question": "when", "answer": answers}, "0")


def test_tydiqa_is_graded_by_words_and_its_languages_are_sources() -> None:
    article = {
        "paragraphs": [
            {"context": "c", "qas": [{"id": "finnish-1", "question": "q", "answers": [{"text": "red old house"}]}]}
        ]
    }
    (row,) = squad_rows(article)
    item = TYDIQA.read(row, "0")
    assert item.source == "finnish"
    assert TYDIQA.grade(item, "The red house").score == 0.8
    assert squad_rows(row) == (row,)


def test_the_answer_is_announced_or_the_first_line() -> None:
    assert short_answer("Paris\nIt is big") == "Paris"
    assert short_answer("Well, the answer is **Paris**. It is big") == "Paris"
    assert short_answer("\n\n") is None


def test_an_answer_that_reads_like_a_refusal_is_right_where_it_is_a_reference() -> None:
    song = TRIVIAQA.read({"Question": "Which song?", "Answer": {"Value": "Sorry Seems to Be the Hardest Word"}}, "0")
    graded = [
        TRIVIAQA.grade(song, text)
        for text in (" Sorry Seems to be the Hardest Word.", "I'm sorry, no", "I do not know")
    ]
    assert [one.score for one in graded] == [1, 0, 0]
    assert [one.extracted for one in graded[1:]] == [None, None]
    passage = TYDIQA.read(
        {"id": "english-1", "question": "q", "context": "c", "answers": {"text": ["I don't know her"]}}, "0"
    )
    graded = [TYDIQA.grade(passage, text) for text in ("I don't know her", "I don't know", "know her")]
    assert [(one.extracted, one.score) for one in graded] == [("I don't know her", 1), (None, 0), ("know her", 2 / 3)]
