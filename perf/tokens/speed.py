"""Documents to shards of tokens on one core, beside datatrove's tokenizer on the same files, in one run.

Ours is the function that each Spark worker runs, `pipelines.pack.pack`: it reads Parquet, encodes, cuts rows, and writes
shards with checksums. datatrove's is its own executor with its Parquet reader and its tokenizer, which writes tokens and
where documents end; its shuffle is switched off, because ours took place before. Neither starts Spark or loads a library or
the tokenizer within the time. Both are charged the processor time of their fastest pass, and the slower of the two ratios of processor
time and wall time counts. The tokens must be the same.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

from contract.chat import SPECIAL_TOKENS
from contract.kinds import Kind
from contract.manifest import File
from contract.settings.corpus import Pack
from contract.settings.corpus import Tokenizer as TokenizerSettings
from contract.store import Store
from perf.bars import Bars
from pipelines.pack import pack
from pipelines.spark.documents import Output
from pipelines.vocabulary.training import train

DATATROVE = ("datatrove[processing,io]==0.10.1", "tokenizers", "orjson")
WHERE = Path(".bench")
FILES, REPEATS = 2, 3


def run(bars: Bars, data: Path) -> None:
    held = list(texts(data))
    size = sum(len(text.encode()) for text in held)
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as folder:
        store, files = documents(Path(folder), held)
        vocabulary = train(held, TokenizerSettings(), [*SPECIAL_TOKENS.values()]).to_str().encode()
        tokenizer = Path(folder) / "tokenizer.json"
        tokenizer.write_bytes(vocabulary)
        used, wall, ours = gristmill(store, files, vocabulary)
        theirs = datatrove(Path(folder), tokenizer)
        tokens = np.concatenate([np.fromfile(file, "<u2") for file in theirs["tokens"]])
        same = int(np.array_equal(ours, tokens))
    print(f"{len(held):,} documents, {size / 1e6:.1f} MB, {len(ours):,} tokens; the same tokens: {bool(same)}")
    for name, processor, seconds in (
        ("gristmill", used, wall),
        ("datatrove", theirs["processor"], theirs["wall"]),
    ):
        rate = len(ours) / processor
        print(
            f"{name}: {rate / 1e6:.2f} million tokens a second of processor, {size / processor / 1e6:.1f} MB/s, wall {seconds:.2f} s"
        )
    bars.at_least("tokens_as_datatrove", same, 1)
    bars.at_least("tokens_a_second_vs_datatrove", min(theirs["processor"] / used, theirs["wall"] / wall), 2)


def texts(data: Path) -> Iterator[str]:
    """Real texts of many languages: the pages of the extraction benchmarks, and crawled texts in English."""
    for file in sorted((data / "html_gold").glob("*.warc.gz")):
        with file.open("rb") as source:
            for record in ArchiveIterator(source, record_types=WarcRecordType.response):
                text = extract_plain_text(record.reader.read().decode("utf-8", "replace"), main_content=True)
                if len(text) > 200:
                    yield text
    for line in (data / "text/llama-factory/c4_demo.jsonl").read_text().splitlines():
        yield json.loads(line)["text"]
    for file in sorted((data / "text/dolma").glob("*.jsonl.gz")):
        for line in gzip.decompress(file.read_bytes()).decode().splitlines():
            yield json.loads(line)["text"]


def documents(folder: Path, held: list[str]) -> tuple[Store, list[File]]:
    """The texts as files of documents below a store in `folder`."""
    (folder / "documents").mkdir()
    files = []
    for part in range(FILES):
        some = held[part::FILES]
        ids = [hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() for text in some]
        path = folder / "documents" / f"{part}.parquet"
        pq.write_table(pa.table({"id": ids, "text": some}), path, compression="zstd", write_page_checksum=True)
        name = f"documents/{part}.parquet"
        files.append(File(path=name, kind=Kind.DOCUMENTS, bytes=path.stat().st_size, rows=len(some), part=part))
    return Store(str(folder)), files


def gristmill(store: Store, files: list[File], vocabulary: bytes) -> tuple[float, float, np.ndarray]:
    """(processor seconds, seconds, tokens) of the fastest of some passes, after one that warms up."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as Spark's workers have it
    taken, made = [], [Output()]
    for _ in range(REPEATS + 1):
        started, used = time.perf_counter(), time.process_time()
        made = [pack(store, "out", Pack(packing="best_fit"), vocabulary, 0, file, str(file.part)) for file in files]
        taken.append((time.process_time() - used, time.perf_counter() - started))
    shards = [np.frombuffer(store.read_bytes(one.tokens.path), "<u2") for output in made for one in output.shards]
    return min(one for one, _ in taken[1:]), min(one for _, one in taken[1:]), np.concatenate(shards)


def datatrove(folder: Path, tokenizer: Path) -> dict:
    """What perf/peers/datatrove_tokens.py measured."""
    script, result = Path(__file__).parents[1] / "peers" / "datatrove_tokens.py", folder / "datatrove.json"
    paths = [result, folder / "documents", tokenizer, str(REPEATS), folder / "datatrove"]
    subprocess.run([peer_python(WHERE), script, *paths], check=True)
    return json.loads(result.read_text())


def peer_python(where: Path) -> Path:
    """datatrove's own environment, made on first use."""
    python, ready = where / "datatrove" / "bin" / "python", where / "datatrove" / ".tokens"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", where / "datatrove"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *DATATROVE], check=True)
        ready.touch()
    return python
