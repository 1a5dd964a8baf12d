"""Training of the four kinds of tokenizer. What each kind keeps of a text stands in docs/tokenizers.md."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from contract.errors import InputError
from contract.settings.corpus import Tokenizer as TokenizerSettings
from pipelines.vocabulary import pieces

UNKNOWN, CONTINUES = "[UNK]", "##"
LONGEST_WORD = 200  # characters; WordPiece takes time that grows with the square of a word
LINE_CHARS = 1 << 16  # SentencePiece learns from lines; longer ones are cut
THREADS = 16  # a fixed number, because Unigram's sums depend on it


def train(texts: Iterable[str], settings: TokenizerSettings, special: Sequence[str]) -> Tokenizer:
    """A tokenizer of `settings.kind` with at most `settings.vocab_size` tokens, the special ones included."""
    if settings.kind == "bpe":
        return train_bpe(texts, settings, special)
    if settings.kind == "wordpiece":
        return train_wordpiece(texts, settings, special)
    model = train_sentencepiece(texts, settings, settings.vocab_size - len(special))
    tokenizer = pieces.convert(model, space=" ")
    tokenizer.add_special_tokens(as_special(special))
    return tokenizer


def as_special(tokens: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def train_bpe(texts: Iterable[str], settings: TokenizerSettings, special: Sequence[str]) -> Tokenizer:
    """A byte-level BPE (GPT-2's pre-tokenization). Special tokens get the first ids, the 256 bytes the next."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if settings.split_digits else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=as_special(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_wordpiece(texts: Iterable[str], settings: TokenizerSettings, special: Sequence[str]) -> Tokenizer:
    """A WordPiece that keeps spaces: the space before a word belongs to it, and Chinese characters stand alone.

    A character needs two pieces, one at a word's start and one within it, so the alphabet gets a quarter of the
    vocabulary: half of it at most is single characters. A word with another character becomes `[UNK]`. The texts are
    read twice.
    """
    alphabet = common_characters(texts, (settings.vocab_size - len(special)) // 4)
    within = [CONTINUES + character for character in alphabet]
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), "isolated"),
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.Punctuation("isolated"),
            *([pre_tokenizers.Digits(individual_digits=True)] if settings.split_digits else []),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex(f"^{CONTINUES}"), ""), decoders.Fuse()])
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        # Named here, the pieces within words get the same ids every time; the trainer would take them as they come.
        special_tokens=as_special([UNKNOWN, *special, *within]),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in within]
    return Tokenizer.from_str(json.dumps(spec))


def common_characters(texts: Iterable[str], count: int) -> list[str]:
    """The `count` most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return sorted(sorted(counts, key=lambda character: (-counts[character], character))[:count])


def train_sentencepiece(texts: Iterable[str], settings: TokenizerSettings, size: int) -> object:
    """A SentencePiece model of `size` pieces, the 256 bytes and the unknown piece included.

    It changes nothing of a text: no normalisation, no space before it, and runs of spaces stay. Raises InputError if
    `size` is too small for the characters of the texts.
    """
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(texts),
            model_writer=written,
            model_type="bpe" if settings.kind == "sentencepiece_bpe" else "unigram",
            vocab_size=size,
            hard_vocab_limit=False,  # a small corpus gives a smaller vocabulary
            character_coverage=0.9995,  # LLaMA has 0.99995, with fewer Chinese texts
            byte_fallback=True,
            split_digits=settings.split_digits,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=4 * LINE_CHARS,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if "required_chars" in str(error):
            raise InputError(
                f"tokenizer.vocab_size {settings.vocab_size} is too small for the characters of the mixture; raise it"
            ) from None
        if "sentences_.empty" in str(error):
            raise InputError("tokenizer: the mixture holds no text to learn from; check the funnel") from None
        raise
    return pieces.parse(written.getvalue(), "the trained model")


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of the texts, none longer than LINE_CHARS. SentencePiece takes no line break; it becomes a byte."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LINE_CHARS):
                yield line[start : start + LINE_CHARS]
