"""The stage tokenizer: what it trains or brings, what it says of it, and from which documents it learns."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from contract.chat import END_OF_TEXT, PAD, RESERVED, SMALLEST_VOCABULARY, SPECIAL_TOKENS, load_special_tokens
from contract.errors import InputError, RecipeError
from contract.fertility import read_fertility
from contract.manifest import need
from contract.recipe import StageSettings, parse
from contract.settings.corpus import Tokenizer as Settings
from pipelines.pack import load_tokenizer
from pipelines.tokenizer import Sample, batched, check
from pipelines.vocabulary.training import train

TEXTS = ["the cat sat on the mat, the cat sat still", "a cat and the mat; na\u00efve caf\u00e9s"] * 20
USUAL = [*SPECIAL_TOKENS.values()]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(train(TEXTS, Settings(vocab_size=344), USUAL).to_str().encode())


def test_special_tokens_and_bytes_are_in_every_vocabulary(tokenizer: Tokenizer) -> None:
    assert (END_OF_TEXT, PAD) == ("<|endoftext|>", "<|pad|>")
    assert len(SPECIAL_TOKENS) == len(set(SPECIAL_TOKENS.values())) == 5 + RESERVED == 69
    assert SPECIAL_TOKENS["reserved_63"] == "<|reserved_63|>"
    special = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS.values()]
    assert sorted(special) == list(range(69))
    assert tokenizer.get_vocab_size() == 344
    single = {tokenizer.id_to_token(number) for number in range(69, SMALLEST_VOCABULARY)}
    assert {len(token) for token in single} == {1}
    assert len(single) == 256


def test_known_merges(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("the cat").tokens == ["the", "\u0120cat"]
    assert tokenizer.encode("xyz").tokens == ["x", "y", "z"]


@given(st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_in_a_text_are_plain_text(tokenizer: Tokenizer) -> None:
    for token in SPECIAL_TOKENS.values():
        text = f"before {token} after"
        assert min(tokenizer.encode(text).ids) >= len(SPECIAL_TOKENS)
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


def test_a_vocabulary_that_cannot_hold_every_byte_is_refused() -> None:
    assert parse("tokenizer: {vocab_size: 325}", "here").tokenizer.vocab_size == 325
    with pytest.raises(
        RecipeError,
        match=r"tokenizer\.vocab_size: should be at least 325, for 69 special tokens and 256 bytes, got 324",
    ):
        parse("tokenizer: {vocab_size: 324}", "here")
    assert train(TEXTS, Settings(vocab_size=325, min_frequency=1), USUAL).get_vocab_size() == 325


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("special_tokens: {eos: x}", "'eos' is no role; there are end_of_text, pad, user, assistant, system and"),
        ('special_tokens: {pad: "<|user|>"}', "'<|user|>' is the token of two roles"),
        ('special_tokens: {pad: ""}', "should have at least 1"),
        (
            "expand: {tokens: 10}",
            "expand.tokens adds to a brought tokenizer; name it as start_from, or raise vocab_size",
        ),
        ("start_from: a, expand: {tokens: 10, model: b}", "name either a model, whose pieces are appended, or"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("|", r"\|")):
        parse(f"tokenizer: {{{given}}}", "here")


def test_files_from_outside_are_declared() -> None:
    named = parse("tokenizer: {start_from: /a, reference: /b, expand: {model: /c}}", "here").tokenizer
    assert named.outside() == {"start_from": "/a", "reference": "/b", "expand.model": "/c"}
    assert Settings().outside() == {}


def test_too_small_a_corpus_gives_a_smaller_vocabulary() -> None:
    made = train(["ab ab ab"], Settings(vocab_size=1000), USUAL)
    assert made.get_vocab_size() == 69 + 256 + 2  # "ab" and " ab"


def test_batched() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


def committed(run: Any, done: Any, kind: str) -> bytes:
    (file,) = done.of(kind)
    data: bytes = run.store.read_bytes(file.path)
    return data


def test_stage(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.spark.job.start_context", lambda *_: pytest.fail("Spark was started"))
    texts = [f"{chr(97 + number % 26) * 3}{chr(97 + number % 17) * 4} and more" for number in range(40)]
    rows = [make_document(text, name=str(number)) for number, text in enumerate(texts)]
    size = [len(text.encode()) for text in texts]
    given = {"tokenizer.vocab_size": 364, "tokenizer.min_frequency": 1, "tokenizer.sample_bytes": sum(size[:11])}
    run = make_corpus([[rows]], given | {"tokenizer.special_tokens": {"pad": "<pad>"}})
    commit_documents(run, "mix", "all", [rows[:9], rows[9:]])
    (done,) = run_stage(run, "tokenizer")
    assert {key: value for key, value in done.metrics.items() if value is not None} == {
        "vocab_size": 364,
        "sample_bytes": sum(size[:11]),
        "sample_documents": 11,
    }
    named = {**SPECIAL_TOKENS, "pad": "<pad>"}
    trained = train(texts[:11], Settings(vocab_size=364, min_frequency=1), [*named.values()])
    assert committed(run, done, "tokenizer").decode() == trained.to_str()
    assert load_special_tokens(committed(run, done, "special_tokens"), "here") == named


def test_each_source_gives_its_share_of_the_sample(make_document: Any, make_corpus: Any, commit_mixture: Any) -> None:
    run = make_corpus([[[make_document("x")]]])
    long, short = (
        [make_document(f"{word * 996}{n:04d}") for n in range(count)] for word, count in (("a", 300), ("b", 100))
    )
    commit_mixture(run, {"documents": [long, short]})
    files = need(run.store, run.task("mix")).of("documents")
    named = [file.model_copy(update={"source": source}) for file, source in zip(files, ("web", "books"), strict=True)]
    sample = Sample(run.store, named, 200_000)
    drawn = [text[0] for text in sample]
    assert drawn.count("a") / drawn.count("b") == pytest.approx(3, abs=0.2), "as their bytes, about"
    assert (sample.bytes, sample.documents) == (1000 * len(drawn), len(drawn))
    assert 200 <= len(drawn) <= 202
    assert [text[0] for text in sample] == drawn, "it may be read again"
    one = [text[0] for text in Sample(run.store, files, 200_000)]
    assert (one.count("a"), one.count("b")) == (200, 0), "without sources the files are one"


def test_a_brought_tokenizer_is_expanded_and_measured_beside_a_reference(
    make_document: Any, make_corpus: Any, commit_mixture: Any, run_stage: Any, tmp_path: Path
) -> None:
    base = train(TEXTS, Settings(vocab_size=344), ["</s>"])
    (tmp_path / "base.json").write_text(base.to_str())
    rows = [make_document("\u6c34\u8f66\u5728\u6cb3\u8fb9", name=f"zh{n}", language="zh") for n in range(20)]
    rows += [make_document("unlike unlike unlike", name=f"en{n}", language="en") for n in range(20)]
    given = {"tokenizer.start_from": str(tmp_path / "base.json"), "tokenizer.reference": str(tmp_path / "base.json")}
    run = make_corpus([[rows]], given | {"tokenizer.expand.tokens": 8, "tokenizer.expand.languages": ["zh"]})
    commit_mixture(run, {"documents": [rows], "heldout": [rows[:1] + rows[-1:]]})
    (done,) = run_stage(run, "tokenizer")
    assert json.loads(committed(run, done, "base_tokenizer")) == json.loads(base.to_str())
    made = Tokenizer.from_str(committed(run, done, "tokenizer").decode())
    held = [base.id_to_token(number) for number in range(base.get_vocab_size())]
    assert [made.id_to_token(number) for number in range(len(held))] == held, "base ids stay"
    assert done.metrics["base_size"] == len(held)
    assert done.metrics["expanded_size"] == len(held) + 8
    special = load_special_tokens(committed(run, done, "special_tokens"), "here")
    assert special["end_of_text"] == "</s>"
    assert made.token_to_id("</s>") == base.token_to_id("</s>")
    assert made.get_vocab_size() == len(held) + 8 + 68, "every role but one was missing"
    found = read_fertility(run.store, done)
    assert found.reference is not None
    chinese, before = found.own["zh"], found.reference["zh"]
    assert (chinese.documents, chinese.words, chinese.characters, chinese.bytes) == (1, 5, 5, 15)
    assert (before.tokens, before.bytes_per_token) == (15, 1.0)
    assert chinese.tokens == 15 - 8, "eight merges shorten five characters of three bytes by eight"
    assert found.own["en"].tokens == found.reference["en"].tokens, "the languages of the sample are those named"
    assert done.metrics["reference_bytes_per_token"] < done.metrics["heldout_bytes_per_token"]


def test_only_a_sentencepiece_model_takes_the_pieces_of_another(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, tmp_path: Path
) -> None:
    (tmp_path / "base.json").write_text(train(TEXTS, Settings(vocab_size=344), []).to_str())
    rows = [make_document("a text")]
    path = str(tmp_path / "base.json")
    run = make_corpus([[rows]], {"tokenizer.start_from": path, "tokenizer.expand.model": path})
    commit_documents(run, "mix", "all", [rows])
    for way in (lambda: run_stage(run, "tokenizer"), lambda: check(StageSettings(run.recipe, "tokenizer"))):
        with pytest.raises(InputError, match="only a SentencePiece model can take the pieces of another"):
            way()


def test_what_the_stage_would_refuse_is_refused_before_the_run(tmp_path: Path) -> None:
    def checked(**given: Any) -> None:
        check(StageSettings(parse(json.dumps({"tokenizer": given}), "here"), "tokenizer"))

    for name, model in (("bpe", models.BPE({"a": 0}, [])), ("unigram", models.Unigram([("a", -1.0)], 0, False))):
        (tmp_path / name).write_text(Tokenizer(model).to_str())
    bpe, unigram = str(tmp_path / "bpe"), str(tmp_path / "unigram")
    checked()
    checked(start_from=bpe, expand={"tokens": 3}, reference=unigram)
    with pytest.raises(InputError, match=r"tokenizer\.reference: .*none does not exist"):
        checked(reference=str(tmp_path / "none"))
    with pytest.raises(InputError, match="is a Unigram, and only a BPE can be continued"):
        checked(start_from=unigram, expand={"tokens": 3})
    (tmp_path / "named").write_text(train(TEXTS, Settings(vocab_size=344), ["</s>"]).to_str())
    with pytest.raises(InputError, match="'</s>' is the token of end_of_text and pad; name another for one of them"):
        checked(start_from=str(tmp_path / "named"), special_tokens={"pad": "</s>"})
