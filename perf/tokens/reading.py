"""How long a step of pretraining waits for its batch, from a store that takes 20 ms to answer each request.

The model is that of recipes/tiny.yaml, on one core. Blocks are of 128 rows, so that one is begun every 16 steps of 8
rows, as blocks of 4,096 rows are by batches of 256; chunks are smaller likewise.
"""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from contract.chat import SPECIAL_TOKENS, dump_special_tokens
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.output import Writer
from contract.plan import Run, resolve
from contract.results import result_of
from contract.shards import RowsWriter, TokenWriter, rows_name
from contract.store import Store
from pipelines.text.packing import stream as cut

DELAY_S = 0.02
VOCABULARY, SEQ_LEN, STEPS = 4096, 256, 96
BLOCK, CHUNK, CACHE = 128, 1 << 16, 1 << 20
SHARDS, DOCUMENTS = 4, 4000


def tokenizer() -> Tokenizer:
    """A tokenizer of the size of the recipe's; nothing is encoded with it."""
    names = [*SPECIAL_TOKENS.values(), *(f"t{number}" for number in range(VOCABULARY - len(SPECIAL_TOKENS)))]
    return Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))


def write_shard(store: Store, path: str, part: int, kind: Kind, random: np.random.Generator) -> list[File]:
    """A shard of random documents of 1 to 600 tokens, as `pack` writes it."""
    tokens, ids, index, rows = (
        Writer(store, name) for name in (f"{path}.bin", f"{path}.ids", f"{path}.idx", rows_name(path, SEQ_LEN))
    )
    writer, places = TokenWriter(tokens, ids, VOCABULARY), RowsWriter(SEQ_LEN)
    sizes = random.integers(1, 600, DOCUMENTS)
    writer.add(random.integers(0, VOCABULARY, int(sizes.sum())), sizes, random.bytes(16 * DOCUMENTS))
    writer.finish(index)
    for rows_of in cut(writer.tokens, SEQ_LEN):
        places.add(*rows_of)
    places.finish(rows, writer.tokens)
    made = [
        (tokens, kind, DOCUMENTS),
        (ids, Kind.TOKEN_IDS, DOCUMENTS),
        (index, Kind.TOKEN_INDEX, DOCUMENTS),
        (rows, Kind.ROWS, places.rows),
    ]
    for one, _, _ in made:
        one.close()
    return [one.file(what, count).model_copy(update={"part": part}) for one, what, count in made]


def committed(folder: Path) -> Run:
    """A run of recipes/tiny.yaml whose corpus is packed, in the folder `runs`."""
    crawl = folder / "crawl"
    crawl.mkdir()
    (crawl / "part.warc.gz").write_bytes(b"WARC")
    settings = (f"store={folder / 'runs'}", f"crawl.source={crawl}", f"pretrain.steps={STEPS}")
    run = resolve("recipes/tiny.yaml", "bench", (*settings, "pretrain.eval_sequences=8"))
    random = np.random.default_rng(0)
    for stage, write in (("tokenizer", _vocabulary), ("pack", _shards)):
        attempt = Attempt(run, run.task(stage))
        attempt.commit(write(run.store, attempt, random), result=result_of(stage).model_construct())
    return run


def _vocabulary(store: Store, attempt: Attempt, _: np.random.Generator) -> list[File]:
    files = []
    for name, kind, data in (
        ("tokenizer.json", Kind.TOKENIZER, tokenizer().to_str().encode()),
        ("special_tokens.json", Kind.SPECIAL_TOKENS, dump_special_tokens(SPECIAL_TOKENS)),
    ):
        store.write_bytes(attempt.path(name), data)
        files.append(File(path=attempt.path(name), kind=kind, bytes=len(data)))
    return files


def _shards(store: Store, attempt: Attempt, random: np.random.Generator) -> list[File]:
    parts = [*((part, Kind.TOKENS) for part in range(SHARDS)), (SHARDS, Kind.HELDOUT_TOKENS)]
    return [
        file for part, kind in parts for file in write_shard(store, attempt.path(f"part-{part}"), part, kind, random)
    ]
