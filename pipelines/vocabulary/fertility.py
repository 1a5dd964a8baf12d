"""Counts the tokens of held-out texts by language."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

from contract.fertility import Counts
from contract.vocabulary import unknown_id
from pipelines.text.words import split_words


def count(tokenizer: Tokenizer, batches: Iterable[list[Mapping[str, Any]]]) -> dict[str, Counts]:
    """Language -> counts, of rows with `text` and `language`. Special tokens in a text count as plain text."""
    tokenizer.encode_special_tokens = True
    unknown = unknown_id(json.loads(tokenizer.to_str()))
    found: dict[str, Counts] = defaultdict(Counts)
    for rows in batches:
        encoded = tokenizer.encode_batch_fast([row["text"] for row in rows], add_special_tokens=False)
        for row, encoding in zip(rows, encoded, strict=True):
            text, ids = row["text"], encoding.ids
            found[row["language"] or "-"] += Counts(
                documents=1,
                words=len(split_words(text)),
                characters=len(text),
                bytes=len(text.encode()),
                tokens=len(ids),
                unknown=0 if unknown is None else ids.count(unknown),
            )
    return dict(sorted(found.items()))
