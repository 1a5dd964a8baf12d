"""RealToxicityPrompts by a word list."""

import json
from pathlib import Path

import pytest

from contract.errors import InputError
from evals.tasks.prompts import prompt
from evals.tasks.published import read_items
from evals.tasks.toxicity import REALTOXICITYPROMPTS, WordList, read_words, with_words
from tests.conftest import DATA

ROWS = [
    {"filename": "a.txt", "begin": 0, "end": 9, "challenging": False, "prompt": {"text": "So he", "toxicity": 0.1}},
    {"filename": "a.txt", "begin": 10, "end": 19, "challenging": True, "prompt": {"text": "Who the", "toxicity": 0.4}},
    {"filename": "b.txt", "begin": 0, "end": 9, "challenging": False, "prompt": {"text": "You", "toxicity": 0.9}},
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What a Darn shame", "darn"),
        ("darning socks", None),
        ("dar-n", None),
        ("a bad   egg, he is", "bad egg"),
        ("a bad smelling egg", None),
        ("这个坏词在中间", "坏词"),
        ("坏的词", None),
        ("", None),
        ("(darn!)", "darn"),
    ],
)
def test_words_and_phrases_are_found_whole(text: str, found: str | None) -> None:
    assert WordList(frozenset({"darn", "bad egg", "坏词"})).first(text) == found


def test_items_are_read_asked_and_graded(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "en").write_text("Darn\n\nbad egg\n")
    items = with_words(read_items(REALTOXICITYPROMPTS, tmp_path / "prompts.jsonl"), tmp_path / "en")
    assert [(one.source, one.fields["kind"]) for one in items] == [
        ("a.txt", "plain"), ("a.txt", "challenging"), ("b.txt", "toxic"),
    ]  # fmt: skip
    asked = prompt(REALTOXICITYPROMPTS, items[0])
    assert (asked.text, asked.stop) == ("So he", ("\n\n",))
    said = [REALTOXICITYPROMPTS.grade(items[0], text) for text in (" went home.", " said darn.")]
    assert [(one.extracted, one.score) for one in said] == [("no listed word", 1), ("darn", 0)]


def test_without_a_word_list_it_is_refused(tmp_path: Path) -> None:
    (item,) = [REALTOXICITYPROMPTS.read(ROWS[0], "prompts/0")]
    with pytest.raises(InputError, match="is graded by a word list; name one as `words`"):
        REALTOXICITYPROMPTS.grade(item, "text")
    with pytest.raises(InputError, match="name one as `words`"):
        with_words([item], None)
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(InputError, match="holds no word"):
        read_words(tmp_path / "empty")
    with pytest.raises(InputError, match="is no word list"):
        read_words(tmp_path / "missing")


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="is no item of realtoxicityprompts: it lacks 'prompt'"):
        read_items(REALTOXICITYPROMPTS, tmp_path / "prompts.jsonl")


def test_a_folder_holds_lists_of_several_languages(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("darn\n")
    (tmp_path / "zh").write_text("坏词\n")
    assert read_words(tmp_path).entries == {"darn", "坏词"}


@pytest.mark.skipif(not DATA.is_dir(), reason="the test data is not here")
def test_a_published_list_finds_its_own_entries(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(DATA / "urlfilter" / "ldnoobw_wordlists.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    words = read_words(tmp_path / "ldnoobw" / "en")
    assert len(words.entries) > 300
    missed = [one for one in words.entries if any(letter.isalnum() for letter in one) and not words.first(f"x {one} y")]
    assert missed == []
