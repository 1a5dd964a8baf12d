"""From filtered documents to token shards: the shuffle half of the Spark plane on one small corpus, every stage in turn."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from contract.chat import END_OF_TEXT
from contract.kinds import Kind
from contract.plan import Run
from contract.shards import in_store, read_ids, read_index, read_tokens, shards_of
from contract.stages import STAGES, downstream, upstream
from contract.store import Store

CHAIN = [stage for stage in STAGES if stage == "pack" or stage in upstream("pack") & downstream("filter")]


def sentences(seed: int, words: int) -> list[str]:
    generator = random.Random(seed)
    return [f"{generator.choice('abcdefgh')}{generator.randrange(5000)}" for _ in range(words)]


def test_chain(
    make_document: Callable[..., dict[str, Any]],
    make_corpus: Callable[..., Run],
    run_stage: Callable[..., Any],
    rows_of: Callable[..., list[dict[str, Any]]],
    tmp_path: Any,
) -> None:
    plain = [make_document(" ".join(sentences(seed, 120)), day=seed % 9) for seed in range(60)]
    twin = make_document(plain[0]["text"] + " one more word", name="twin", day=1)
    same_url = make_document(" ".join(sentences(900, 120)), url=plain[1]["url"] + "?utm_source=x#top", day=20)
    shared = sentences(901, 60)
    with_shared = [
        make_document(" ".join([*sentences(902 + n, 100), *shared, *sentences(912 + n, 100)]), name=f"shared{n}")
        for n in range(2)
    ]
    documents = [*plain, twin, same_url, *with_shared]
    run = make_corpus(
        [[documents[:20], documents[20:40]], [documents[40:]]],
        {"tokenizer.vocab_size": 600, "pack.seq_len": 1024, "mix.shards": 2, "mix.heldout_fraction": 0.2},
    )
    done = {stage: run_stage(run, stage) for stage in CHAIN}
    store = run.store

    for stage in CHAIN[: CHAIN.index("mix")]:
        own = [
            file.kind for manifest in done[stage] for file in manifest.files if file.path.startswith(manifest.prefix)
        ]
        assert "documents" not in own, f"{stage} writes texts again"
    (by_url,) = rows_of(store, done["dedup_url"], "drops")
    assert (by_url["id"], by_url["duplicate_of"], by_url["reason"]) == (plain[1]["id"], same_url["id"], "duplicate_url")
    (by_text,) = rows_of(store, done["dedup_fuzzy"], "drops")
    assert (by_text["id"], by_text["duplicate_of"], by_text["reason"]) == (plain[0]["id"], twin["id"], "near_duplicate")
    cut = {row["id"]: row["text"] for row in rows_of(store, done["dedup_substring"], "documents")}
    first, second = sorted(with_shared, key=lambda row: row["id"])
    assert cut[first["id"]] == first["text"]
    assert cut[second["id"]] == second["text"].replace(" ".join(shared) + " ", "")
    assert done["decontaminate"][0].rows.kept == 62
    mixture = done["mix"][0]
    train, heldout = rows_of(store, [mixture], "documents"), rows_of(store, [mixture], "heldout")
    assert {row["id"] for row in train} | {row["id"] for row in heldout} == set(cut)
    assert len(train) + len(heldout) == 62
    assert heldout

    for kind, rows in ((Kind.TOKENS, train), (Kind.HELDOUT_TOKENS, heldout)):
        assert decoded(store, done, kind) == {row["id"]: row["text"] for row in rows}


def decoded(store: Store, done: dict[str, Any], kind: Kind) -> dict[str, str]:
    """Every document of the shards of a kind, decoded back to text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(store.read_bytes(done["tokenizer"][0].of("tokenizer")[0].path))
    end = tokenizer.token_to_id(END_OF_TEXT)
    texts = {}
    for shard in shards_of(done["pack"][0], kind):
        index = read_index(*in_store(store, shard.index), shard.index.path)
        ids = read_ids(*in_store(store, shard.ids), range(index.documents), index, shard.ids.path)
        flat = read_tokens(in_store(store, shard.tokens)[0], index, 0, index.tokens, shard.tokens.path)
        for key, (start, stop) in zip(ids, pairwise(index.starts.tolist()), strict=True):
            assert flat[stop - 1] == end
            texts[key] = tokenizer.decode(flat[start : stop - 1], skip_special_tokens=False)
    return texts
