"""The stage on real Spark against brute force: random, periodic and all-equal texts, repeats at both ends, both cuts, two passes."""

import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from contract.cuts import read_cuts, without
from contract.documents import read_documents
from contract.manifest import File
from contract.plan import Run
from contract.schema import DOCUMENTS
from contract.settings.corpus import DedupSubstring
from contract.store import Store
from pipelines import dedup_substring
from pipelines.dedup import repeats
from pipelines.spark.documents import DocumentSink, write_cuts
from pipelines.spark.heldout import is_heldout

Rows = list[dict[str, Any]]
Texts = dict[str, list[str]]
FRACTION = 0.3  # of the documents that are held out
HELD = ["25", "4"]


def repeated(texts: Texts, k: int, cut: str, fraction: float = 0.0) -> set[tuple[str, int]]:
    """(id, place) of every token that is cut: every window is compared with every other, and the marked ones go.

    `fraction` of the documents are held out; only what those repeat among themselves is cut from them.
    """
    held = {key for key in texts if is_heldout(fraction, key)}
    places: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for key in sorted(texts, key=lambda key: (key not in held, key)):
        for start in range(len(texts[key]) - k + 1):
            places.setdefault(tuple(texts[key][start : start + k]), []).append((key, start))
    gone: set[tuple[str, int]] = set()
    for found in places.values():
        alone = sum(key in held for key, _ in found) == 1  # stays, whatever training text repeats it
        marked = found if cut == "all" and len(found) > 1 and not alone else found[1:]
        gone.update((key, word) for key, start in marked for word in range(start, start + k))
    return gone


def brute_force(texts: Texts, k: int, cut: str, fraction: float = 0.0) -> Texts:
    """What one pass leaves of id -> words."""
    gone = repeated(texts, k, cut, fraction)
    return {key: [word for at, word in enumerate(words) if (key, at) not in gone] for key, words in texts.items()}


def test_brute_force_on_known_answers() -> None:
    texts = {"1": ["a", "b", "c", "d"], "2": ["x", "b", "c", "d"]}
    assert brute_force(texts, 3, "keep_first") == {"1": ["a", "b", "c", "d"], "2": ["x"]}
    assert brute_force(texts, 3, "all") == {"1": ["a"], "2": ["x"]}
    assert brute_force(texts, 4, "all") == texts
    assert brute_force({"1": ["a"] * 5}, 3, "keep_first") == {"1": ["a"]}
    assert brute_force({"1": ["a"] * 5}, 3, "all") == {"1": []}
    assert sorted(key for key in map(str, range(30)) if is_heldout(0.2, key)) == HELD
    assert brute_force({"1": list("abc"), HELD[0]: list("abc")}, 3, "all", 0.2) == {"1": [], HELD[0]: list("abc")}
    assert brute_force({HELD[0]: list("abc"), HELD[1]: list("abc")}, 3, "all", 0.2) == {HELD[0]: [], HELD[1]: []}
    kept = brute_force({"1": list("abc"), HELD[0]: list("abc"), HELD[1]: list("abc")}, 3, "keep_first", 0.2)
    assert kept == {"1": [], HELD[0]: list("abc"), HELD[1]: []}


@pytest.fixture
def documents(make_document: Callable[..., dict[str, Any]]) -> Rows:
    generator = random.Random(5)
    passage = [f"p{n}" for n in range(30)]
    other = [f"o{n}" for n in range(9)]

    def fresh(count: int) -> list[str]:
        return [f"f{generator.randrange(10**9)}" for _ in range(count)]

    texts = [[generator.choice("ab") for _ in range(generator.randrange(40))] for _ in range(25)]
    texts += [list("abc") * times for times in range(1, 8)]
    texts += [["same"] * times for times in (5, 7, 8, 9, 30)]
    texts += [[*passage, *fresh(20)], [*fresh(20), *passage], [*fresh(9), *passage[5:25], *fresh(9)], passage]
    texts += [[*fresh(5), *other[:4], *passage[:10], *other[4:], *fresh(5)], [*fresh(5), *other, *fresh(5)]]
    texts += [fresh(7), fresh(60), []]
    return [
        make_document("".join(word + generator.choice([" ", "\n", "  ", "\n\n"]) for word in words), name=str(number))
        for number, words in enumerate(texts)
    ]


def deduplicate(
    documents: Rows,
    settings: dict[str, Any],
    files: int,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    fraction: float = 0.0,
) -> tuple[Run, Any]:
    """Run the stage with the documents in any order over a number of files; nothing was dropped before."""
    shuffled = random.Random(files).sample(documents, len(documents))
    given = {
        "dedup_substring.min_chars": 0,
        "mix.heldout_fraction": fraction,
        **{f"dedup_substring.{key}": value for key, value in settings.items()},
    }
    run = make_corpus(
        [[]],
        given | {"spark.shuffle_partitions": files},
        name=f"files{files}",
    )
    commit_documents(run, "dedup_fuzzy", "all", [shuffled[at::files] for at in range(files)])
    return run, run_stage(run, "dedup_substring")[0]


@pytest.mark.parametrize(
    ("cut", "passes", "files", "one_process_bytes"),
    [
        ("keep_first", 1, 1, 0),
        ("keep_first", 1, 16, 0),
        ("all", 1, 3, 0),
        ("all", 2, 2, 0),
        ("keep_first", 2, 3, 1 << 20),
        ("all", 1, 2, 1 << 20),
    ],
)
@pytest.mark.usefixtures("without_spark")
def test_equals_brute_force(
    cut: str,
    passes: int,
    files: int,
    one_process_bytes: int,
    documents: Rows,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    rows_of: Any,
) -> None:
    settings = {"min_tokens": 8, "cut": cut, "passes": passes, "one_process_bytes": one_process_bytes}
    run, done = deduplicate(documents, settings, files, make_corpus, commit_documents, run_stage, FRACTION)
    expected = {row["id"]: row["text"].split() for row in documents}
    before = sum(map(len, expected.values()))
    for _ in range(passes):
        expected = brute_force(expected, 8, cut, FRACTION)
    rows = rows_of(run.store, [done], "documents")
    assert {row["id"]: row["text"].split() for row in rows} == expected
    originals = {row["id"]: row for row in documents}
    untouched = [row for row in rows if row["text"].split() == originals[row["id"]]["text"].split()]
    assert all(row == originals[row["id"]] for row in untouched)
    assert 5 < len(untouched) < len(rows) - 20
    assert done.metrics["tokens_cut"] == before - sum(map(len, expected.values()))
    assert done.metrics["documents_cut"] == len(rows) - len(untouched)
    assert done.rows.bytes_read == sum(len(row["text"]) for row in documents)
    assert done.rows.bytes_kept == sum(len(row["text"]) for row in rows)


def trained(texts: list[str], path: Path) -> Tokenizer:
    """A small byte-level BPE in the file of a recipe: characters of several bytes are several tokens unless they are frequent."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, BpeTrainer(vocab_size=300, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    tokenizer.save(str(path))
    return tokenizer


def without_tokens(text: str, spans: list[tuple[int, int]], gone: set[int]) -> str:
    """By characters: one goes with the last of the tokens that hold a part of it, white space with the token before it.

    White space in front goes with the first token, and at the end of what is left where the last one goes.
    """
    left = []
    for at, character in enumerate(text):
        holders = [number for number, (start, end) in enumerate(spans) if start <= at < end]
        before = max((number for number, (_, end) in enumerate(spans) if end <= at), default=0)
        if not gone.issuperset(holders or [before]):
            left.append(character)
    return "".join(left).rstrip() if len(spans) - 1 in gone else "".join(left)


@pytest.fixture
def spoken() -> list[str]:
    """Texts that share passages between characters of which they share some bytes: é, ũ and 漩 the last one, 漢 and 漣 the first two."""
    generator = random.Random(11)
    passages = ["café und 漢字 🙂, gut so", "Ünïcödé\n\nhere; ũũ 漣 🙃🙃 more", "nothing of note in this one"]
    fronts, backs = ["é", "ũ", "ĩ", "漩", " ", "\n"], ["漢", "漣", "🙂", "🙃", " x", "a"]

    def fresh() -> str:
        return "".join(generator.choice("bcdfgäöñ漢字🙂é \n") for _ in range(generator.randrange(3, 30)))

    texts = []
    for _ in range(36):
        parts = [fresh()]
        for passage in generator.sample(passages, generator.randrange(3)):
            parts += [generator.choice(fronts), passage, generator.choice(backs), fresh()]
        texts.append("".join(parts))
    apart = [f"zq xw {passages[0]} vk jp", "zq xw vk jp."]  # what a first pass brings together
    return [*texts, *passages, *apart, "🙂" * 12, "é" * 30, "", "  \n "]


@pytest.mark.parametrize("one_process_bytes", [0, 1 << 20], ids=["shuffles", "suffix_array"])
@pytest.mark.parametrize(("cut", "passes", "files"), [("keep_first", 1, 3), ("all", 2, 2)])
@pytest.mark.usefixtures("without_spark")
def test_tokens_of_a_real_tokenizer_equal_brute_force(
    cut: str,
    passes: int,
    files: int,
    one_process_bytes: int,
    spoken: list[str],
    tmp_path: Path,
    make_document: Any,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    rows_of: Any,
) -> None:
    tokenizer = trained(["gut so, nothing of note in this one here und more"] * 9, tmp_path / "tokenizer.json")
    documents = [make_document(text, name=str(number)) for number, text in enumerate(spoken)]
    settings = {
        "min_tokens": 8, "cut": cut, "passes": passes, "one_process_bytes": one_process_bytes,
        "tokenizer": str(tmp_path / "tokenizer.json"),
    }  # fmt: skip
    run, done = deduplicate(documents, settings, files, make_corpus, commit_documents, run_stage)
    expected = {row["id"]: row["text"] for row in documents}
    torn, found_by = 0, []
    for _ in range(passes):
        coded = {key: tokenizer.encode(text) for key, text in expected.items()}
        gone = repeated({key: [str(one) for one in found.ids] for key, found in coded.items()}, 8, cut)
        for key, found in coded.items():
            mine = {place for other, place in gone if other == key}
            expected[key] = without_tokens(expected[key], found.offsets, mine)
            pairs = enumerate(pairwise(found.offsets))
            torn += sum((at in mine) != (at + 1 in mine) and one == other for at, (one, other) in pairs)
        found_by.append(len(gone))
    assert {row["id"]: row["text"] for row in rows_of(run.store, [done], "documents")} == expected
    assert done.metrics["tokens_cut"] == sum(found_by)
    assert min(found_by) > 10
    assert torn > 8, "cuts that begin or end within a character"


@pytest.mark.usefixtures("without_spark")
def test_second_pass_finds_what_the_first_made(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    """`a b` is torn apart by a passage in one document; only when that is cut do both documents hold `a b`."""
    a, b, passage = ([f"{name}{n}" for n in range(6)] for name in "abp")
    texts = [[*a, *passage, *b], [*a, *b, "end"], ["start", *passage, "stop"]]
    documents = [make_document(" ".join(words), name=f"n{number}") for number, words in enumerate(texts)]
    for passes in (1, 2):
        settings = {"min_tokens": 6, "cut": "all", "passes": passes}
        run, done = deduplicate(documents, settings, passes, make_corpus, commit_documents, run_stage)
        rows = {row["id"]: row["text"] for row in rows_of(run.store, [done], "documents")}
        assert rows[documents[1]["id"]] == "end"
        assert rows[documents[2]["id"]] == "start stop"


@pytest.mark.usefixtures("without_spark")
def test_too_little_left(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, rows_of: Any
) -> None:
    passage = " ".join(f"word{n}" for n in range(10))
    keeper, copy, tail = (
        make_document(text, name=name)
        for text, name in ((f"{passage} and more of it", "a"), (passage, "b"), (f"{passage} short tail", "c"))
    )
    settings = {"min_tokens": 10, "cut": "all", "min_chars": 11}
    run, done = deduplicate([keeper, copy, tail], settings, 1, make_corpus, commit_documents, run_stage)
    assert [row["text"] for row in rows_of(run.store, [done], "documents")] == ["and more of it"]
    drops = {row["id"]: row for row in rows_of(run.store, [done], "drops")}
    assert {row["reason"] for row in drops.values()} == {"substring_too_short"}
    assert (drops[copy["id"]]["value"], drops[tail["id"]]["value"]) == ("0", "10")
    assert drops[copy["id"]]["snippet"] == passage
    assert (done.rows.read, done.rows.kept, done.rows.dropped) == (3, 1, 2)
    assert done.rows.bytes_read == sum(len(row["text"]) for row in (keeper, copy, tail))


def test_what_is_cut_is_written_as_cuts_and_what_goes_leaves_the_index(tmp_store: Store, make_document: Any) -> None:
    texts = ["text number 0", "all of it", "text number 2 with more"]
    rows = [make_document(text, name=str(number)) for number, text in enumerate(texts)]
    sink = DocumentSink(tmp_store, "in", "dedup_fuzzy", "0", DOCUMENTS)
    for row in rows:
        sink.keep(row, 0)
    (part,) = sink.close().parts
    ids = {at: row["id"] for at, row in enumerate(rows)}
    cut = replace(part, cuts=write_cuts(tmp_store, "cuts.parquet", {1: [(0, 8)], 2: [(13, 23)]}, ids))
    output = dedup_substring.drop_short(tmp_store, "cut", 2, (), cut, "00000")
    assert (output.counts.read, output.counts.kept) == (3, 2)
    assert (output.counts.bytes_read, output.counts.bytes_kept) == (45, 26)
    (left,) = output.parts
    assert [row["text"] for row in read_documents(tmp_store, left, ["text"])] == ["text number 0", "text number 2"]
    assert left.cuts == cut.cuts
    (drops,) = output.files
    assert drops.kind == "drops"
    nothing = dedup_substring.drop_short(tmp_store, "none", 1000, (), cut, "00000")
    assert nothing.parts == []
    assert [file.kind for file in nothing.files] == ["drops", "cuts"], "what was cut of dropped documents is told"


def test_the_size_is_that_of_the_text(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two megabytes that Parquet packs into a few kilobytes do not go to the one process for up to one."""
    seen = []
    monkeypatch.setattr(dedup_substring, "find_alone", lambda *_: pytest.fail("more than one_process_bytes"))
    monkeypatch.setattr(dedup_substring, "find_by_shuffles", lambda *given: seen.append(given[-1]) or [])
    rows = [make_document("word " * 200_000, name=str(number)) for number in range(2)]
    deduplicate(rows, {"one_process_bytes": 1 << 20}, 1, make_corpus, commit_documents, run_stage)
    assert seen == [2_000_000]


def test_no_documents(make_corpus: Any, commit_documents: Any, run_stage: Any) -> None:
    _run, done = deduplicate([], {}, 1, make_corpus, commit_documents, run_stage)
    assert (done.rows.read, done.files) == (0, ())


@pytest.fixture
def left_of(tmp_store: Store, in_process: Any) -> Callable[..., dict[str, str]]:
    """`left_of(documents, settings, files, buckets)`: id -> what the passes over an exchange without Spark leave of the text."""

    def find(
        documents: Rows, settings: DedupSubstring, files: int, buckets: int, fraction: float = 0.0
    ) -> dict[str, str]:
        place, items = uuid.uuid4().hex, []
        for number in range(files):
            sink = DocumentSink(tmp_store, place, "filter", f"{number:05d}-{number:08x}", DOCUMENTS)
            for row in documents[number::files]:
                sink.keep(row, 0)
            items += sink.close().parts
        for number in range(settings.passes):
            shared = SimpleNamespace(value=items)
            made = repeats.steps(tmp_store, place, shared, len(items), settings, fraction, buckets)
            for one in in_process(made, number):
                cuts = File(path=one["path"], kind="cuts", bytes=one["bytes"], rows=one["rows"])
                items[one["part"]] = replace(items[one["part"]], cuts=cuts)
        left = {row["id"]: row["text"] for row in documents}
        for number, item in enumerate(items):
            for row, cuts in read_cuts(tmp_store, item.cuts).items():
                key = documents[number::files][row]["id"]
                left[key] = without(left[key].encode(), cuts).decode()  # raises where a character is torn
        return left

    return find


WORD = st.sampled_from(["a", "b", "é", "漢字", "🙂", "word"])
WORDS = st.one_of(
    st.lists(WORD, max_size=25),
    st.builds(lambda unit, times: unit * times, st.lists(WORD, min_size=1, max_size=4), st.integers(0, 12)),
    st.builds(lambda a, b, c: [*a, *b, *c], *[st.sampled_from([list("uvwxyz"), list("zyx"), ["é"] * 9, []])] * 3),
)


@given(
    st.lists(WORDS, min_size=1, max_size=6),
    st.builds(
        DedupSubstring,
        min_tokens=st.integers(2, 7),
        cut=st.sampled_from(["all", "keep_first"]),
        passes=st.integers(1, 3),
    ),
    st.sampled_from([(1, 1), (2, 3), (1, 16)]),
    st.sampled_from([" ", "\n\n", "\u3000 "]),
    st.sampled_from([0.0, 0.5]),
)
@examples(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts_equal_brute_force(
    left_of: Any,
    make_document: Any,
    texts: list[list[str]],
    settings: DedupSubstring,
    spread: tuple[int, int],
    gap: str,
    fraction: float,
) -> None:
    """Periodic and all-equal texts, repeats that overlap, and those at both ends, in words of one to four bytes a character."""
    documents = [make_document(gap.join(words), name=str(number)) for number, words in enumerate(texts)]
    expected = {row["id"]: row["text"].split() for row in documents}
    for _ in range(settings.passes):
        expected = brute_force(expected, settings.min_tokens, settings.cut, fraction)
    left = left_of(documents, settings, min(spread[0], len(texts)), spread[1], fraction)
    assert {key: text.split() for key, text in left.items()} == expected


def test_one_long_repeat(left_of: Any, make_document: Any) -> None:
    """A book in two documents, a piece of it in a third, and the whole of it twice in a fourth."""
    generator = random.Random(9)
    book = [f"w{generator.randrange(10**6)}" for _ in range(30_000)]
    texts = [book, ["x", *book, "y"], book[1000:9000], [*book, *book], ["only", "this"]]
    documents = [make_document(" ".join(words), id=f"{number:032x}") for number, words in enumerate(texts)]
    for cut in ("all", "keep_first"):
        left = left_of(documents, DedupSubstring(cut=cut), 2, 3)
        expected = brute_force({row["id"]: row["text"].split() for row in documents}, 50, cut)
        assert {key: text.split() for key, text in left.items()} == expected
        assert sorted(map(len, expected.values())) == ([0, 0, 0, 2, 2] if cut == "all" else [0, 0, 2, 2, 30_000])


@pytest.mark.parametrize("cut", ["keep_first", "all"])
@pytest.mark.parametrize(
    ("files", "buckets", "hot", "block_rows"), [(1, 1, 1 << 16, 1024), (3, 4, 1, 1024), (2, 3, 2, 2), (4, 16, 2, 1024)]
)
def test_steps_equal_brute_force(
    cut: Any,
    files: int,
    buckets: int,
    hot: int,
    block_rows: int,
    documents: Rows,
    left_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is hot, however documents are cut into blocks, and in whichever order batches come."""
    monkeypatch.setattr(repeats, "HOT", hot)
    monkeypatch.setattr("pipelines.dedup.tokens.BLOCK_ROWS", block_rows)
    monkeypatch.setattr(repeats, "PIECE_BYTES", 40 * hot)
    left = left_of(documents, DedupSubstring(min_tokens=8, cut=cut), files, buckets, FRACTION)
    expected = brute_force({row["id"]: row["text"].split() for row in documents}, 8, cut, FRACTION)
    assert {key: text.split() for key, text in left.items()} == expected
