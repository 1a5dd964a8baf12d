"""Chinese-LLaMA's vocabulary, merged from its two SentencePiece models: its size, and what it saves on Chinese text."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer

from perf.bars import Bars
from pipelines.vocabulary import pieces


def run(bars: Bars, data: Path) -> None:
    base = _model(data / "tokenizers/llama2.c/tokenizer.model")
    merged = pieces.merge(base, _model(data / "tokenizers/chinese-llama-alpaca/chinese_sp.model"))
    before, after = pieces.convert(base), pieces.convert(merged)
    texts, others = chinese(data), sentences(data)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} Chinese texts, {size:,} bytes; {len(others):,} sentences in 75 languages")
    tokens, fewer = count(before, texts), count(after, texts)
    print(
        f"Chinese: {tokens:,} tokens with LLaMA's, {fewer:,} with the merged; others {count(before, others):,} and {count(after, others):,}"
    )
    own = sentencepiece.SentencePieceProcessor(model_proto=merged.SerializeToString())
    print(
        f"SentencePiece itself makes {sum(map(len, own.encode(texts))):,} tokens of the Chinese texts with the merged model"
    )
    bars.exactly("merge_size", after.get_vocab_size(), 49_953)
    bars.at_most("merge_zh_shorter", fewer / tokens, 0.55)
    lost = sum(after.decode(before.encode(text, add_special_tokens=False).ids) != text for text in texts + others)
    bars.at_most("merge_base_texts_lost", lost, 0)
    bars.at_most("convert_texts_differ", differing(base, before, texts + others), 0)


def differing(model: Any, converted: Tokenizer, texts: list[str]) -> int:
    """The number of texts to which a converted tokenizer gives other ids than SentencePiece itself."""
    own = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    converted.encode_special_tokens = True
    return sum(converted.encode(text, add_special_tokens=False).ids != own.encode(text) for text in texts)


def chinese(data: Path) -> list[str]:
    """Chats, sentences of news, and questions of examinations, in Chinese."""
    chats = json.loads((data / "sft/llama-factory/alpaca_zh_demo.json").read_text())
    texts = [row["instruction"] + row["input"] + row["output"] for row in chats]
    with zipfile.ZipFile(data / "evals/ceval/ceval_dev_val_only.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".csv") and not name.startswith("__MACOSX")]
        texts += [archive.read(name).decode(errors="replace") for name in names]
    return texts + sentences(data, "zh.txt")


def sentences(data: Path, ending: str = ".txt") -> list[str]:
    with tarfile.open(data / "lid/lingua_sentences_75langs.tar.xz") as archive:
        files = [archive.extractfile(one) for one in archive if one.isfile() and one.name.endswith(ending)]
        return [line.rstrip("\n") for file in files if file for line in io.TextIOWrapper(file, "utf-8")]


def count(tokenizer: Tokenizer, texts: list[str]) -> int:
    return sum(len(one.ids) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def _model(path: Path) -> Any:
    return pieces.parse(path.read_bytes(), str(path))
