"""langid: known answers, odd input, and languages that do not exist."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.documents import Part, read_documents
from contract.errors import RecipeError
from contract.recipe import StageSettings, parse
from contract.schema import DOCUMENTS, Drop
from contract.settings.corpus import Langid
from contract.tables import read_rows
from pipelines.langid import UNKNOWN, _work, check, identify, language_verdict, rank
from pipelines.spark.tables import TableWriter
from pipelines.text.fasttext_model import model


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The river bends twice before\nit meets the old mill.", "en"),
        ("Der Fluss macht zwei Biegungen, bevor er die alte Mühle erreicht.", "de"),
        ("这条河在到达老磨坊之前转了两个弯。", "zh"),
        ("Река дважды поворачивает, прежде чем достигает старой мельницы.", "ru"),
    ],
)
def test_known_answers(text, language):
    found, probability = identify(text)
    assert found == language
    assert 0.5 < probability <= 1.0


def test_a_text_is_one_line_that_ends():
    """fastText takes the end of a line for a word, in training and here."""
    expected = model().f.predict("une petite\n", 3, 0.0, "strict")
    assert rank(" une\n\npetite ") == [(label.removeprefix("__label__"), pytest.approx(one)) for one, label in expected]
    assert model().f.predict("une petite", 3, 0.0, "strict") != expected


@pytest.mark.parametrize("text", ["", "  \n", "12 345 !?", "\ud800"])
def test_text_without_letters_has_no_language(text):
    assert identify(text) == UNKNOWN


@given(st.text(max_size=200))
def test_probabilities_are_probabilities(text):
    language, probability = identify(text)
    assert 0.0 <= probability <= 1.0
    assert language == "und" or language.isalpha()


def left(store, output):
    return [row for part in output.parts for row in read_documents(store, part, DOCUMENTS.names)]


def test_the_three_likeliest_stay_in_the_document(tmp_store):
    mixed = "The river bends twice. Der Fluss macht zwei Biegungen. La rivière fait deux détours."
    ranked = rank(mixed)
    assert len(ranked) == 3
    assert {language for language, _ in ranked[:2]} == {"de", "fr"}
    probabilities = [probability for _, probability in ranked]
    assert probabilities == sorted(probabilities, reverse=True)
    assert ranked[0] == identify(mixed)
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    for number, text in enumerate([mixed, "12 345"]):
        writer.write(dict.fromkeys(DOCUMENTS.names) | {"id": f"{number}", "text": text})
    output = _work(
        tmp_store, "out", Langid(languages=(), min_probability=0), [Part(file) for file in writer.close()], "0"
    )
    whole, numbers = left(tmp_store, output)
    assert whole["languages"] == [language for language, _ in ranked]
    assert whole["language_probabilities"] == pytest.approx(probabilities)
    assert (whole["language"], whole["language_probability"]) == (
        whole["languages"][0],
        whole["language_probabilities"][0],
    )
    assert (numbers["languages"], numbers["language_probabilities"]) == (["und"], [0.0])


@pytest.mark.parametrize(
    ("language", "probability", "found"),
    [
        ("en", 0.65, None),
        ("en", 0.649, (Drop.LANGUAGE_UNSURE, "en 0.65")),
        ("de", 0.99, (Drop.LANGUAGE, "de 0.99")),
    ],
)
def test_judge(language, probability, found):
    assert language_verdict(language, probability, Langid()) == found


def test_documents_of_other_languages_go(tmp_store):
    texts = ["The river bends twice before it meets the old mill.", "Der Fluss macht zwei Biegungen vor der Mühle."]
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    for number, text in enumerate(texts):
        writer.write(dict.fromkeys(DOCUMENTS.names) | {"id": f"{number}", "text": text})
    output = _work(
        tmp_store, "out", Langid(languages=("en",), min_probability=0), [Part(file) for file in writer.close()], "0"
    )
    kept, (drops,) = left(tmp_store, output), output.files
    dropped = [*read_rows(tmp_store, drops.path)]
    assert [(row["id"], row["language"], row["text"]) for row in kept] == [("0", "en", texts[0])]
    assert [(row["id"], row["reason"], row["value"][:3]) for row in dropped] == [("1", "language", "de ")]
    assert (output.counts.bytes_read, output.counts.bytes_kept) == (
        sum(len(text.encode()) for text in texts),
        len(texts[0].encode()),
    )


def test_the_head_of_a_text_tells_its_language(tmp_store):
    text = "The river bends twice before it meets the old mill. " + "这条河在到达老磨坊之前转了两个弯。" * 50
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    writer.write(dict.fromkeys(DOCUMENTS.names) | {"id": "0", "text": text})
    settings = Langid(languages=(), min_probability=0, sample_chars=51)
    (row,) = left(tmp_store, _work(tmp_store, "out", settings, [Part(file) for file in writer.close()], "0"))
    assert (row["language"], row["text"]) == ("en", text)
    assert row["language_probability"] == pytest.approx(identify(text[:51])[1])


def test_an_empty_list_keeps_every_language():
    settings = Langid(languages=())
    assert language_verdict("de", 0.9, settings) is None
    assert language_verdict("de", 0.1, settings) == (Drop.LANGUAGE_UNSURE, "de 0.10")
    check(StageSettings(parse("langid: {languages: []}", "test"), "langid"))


def test_a_language_that_the_model_never_answers_is_refused():
    check(StageSettings(parse("langid: {languages: [en, zh, yue, wuu]}", "test"), "langid"))
    with pytest.raises(RecipeError, match="does not know eng, cn;"):
        check(StageSettings(parse("langid: {languages: [en, eng, cn]}", "test"), "langid"))


def test_labelled_paragraphs(data_dir):
    """whatlang's examples are labelled in ISO 639-3; only languages with a two-letter code are compared."""
    codes = {
        "eng": "en",
        "deu": "de",
        "fra": "fr",
        "spa": "es",
        "ita": "it",
        "por": "pt",
        "pol": "pl",
        "rus": "ru",
        "cmn": "zh",
        "jpn": "ja",
        "kor": "ko",
        "ukr": "uk",
        "nld": "nl",
        "tur": "tr",
    }
    examples = json.loads((data_dir / "lid" / "whatlang_examples.json").read_text())
    asked = {codes[code]: text for code, text in examples.items() if code in codes}
    assert len(asked) >= 12
    assert {language: identify(text)[0] for language, text in asked.items()} == {
        language: language for language in asked
    }
