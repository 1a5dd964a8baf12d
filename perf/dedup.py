"""Deduplication beside its peers, and at size: `make bench-dedup`.

Every part, and in it every command, runs in a process of its own on two cores; speeds are charged with the processor time of the command
and of everything it starts, which a busy machine disturbs least. Peers live in environments of their own under `.bench`.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.kinds import Kind
from contract.manifest import Attempt, File, need
from contract.plan import Run, open_run
from contract.settings.corpus import MINHASH_PRESETS
from contract.store import Store
from contract.tables import read_rows
from perf import synthetic
from perf.bars import Bars
from perf.measure import Cost, cost
from perf.parts import BENCHES, run_parts
from pipelines.dedup.linking import set_jaccards
from pipelines.dedup.links import ROW_BITS
from pipelines.dedup.minhash import band_keys, found_probability, minima, permutations, signatures
from pipelines.spark.job import Job
from pipelines.text.folding import normalize
from pipelines.text.hashing import buffers, shingles

DATATROVE = ("datatrove[processing,io]==0.10.1", "spacy", "orjson")
CORES = 2
GIB = 1 << 30
TIMES = ("wall", "processor")


def peer_python(where: Path) -> Path:
    """datatrove's own environment, made on first use."""
    python, ready = where / "datatrove" / "bin" / "python", where / "datatrove" / ".minhash"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", where / "datatrove"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *DATATROVE], check=True)
        ready.touch()
    return python


def fastest(work: Any, repeats: int) -> float:
    """Processor seconds of the fastest of some calls, after one that warms up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def bench_sign(bars: Bars) -> None:
    """From texts to signatures, against datasketch's bulk from ready-made shingles (its default hash), on 931 words a text."""
    from datasketch import MinHash

    texts = list(synthetic.texts(400, 931))
    data, offsets = buffers(pa.array(texts))
    split = [text.split() for text in texts]
    ready = [[" ".join(words[at : at + 5]).encode() for at in range(len(words) - 4)] for words in split]
    hashes, bounds = shingles(data, offsets, 5)
    for name, count, sample, bar in (("14x8", 112, 400, 10), ("450x20", 9000, 20, 20)):
        ours = fastest(lambda count=count: signatures(data, offsets, 5, count, 1), 3) / len(texts)
        theirs = (
            fastest(lambda count=count, sample=sample: MinHash.bulk(ready[:sample], num_perm=count, seed=1), 1) / sample
        )
        print(f"signing {name}: {ours * 1e6:.0f} us a text, datasketch {theirs * 1e6:.0f} us")
        bars.at_least(f"sign_{name}_vs_datasketch", theirs / ours, bar)
        known = [hashes[low:high].astype(np.uint32) for low, high in pairwise(bounds[:21].tolist())]
        oracle = MinHash.bulk(known, num_perm=count, seed=1, hashfunc=int)
        mine = minima(hashes.astype(np.uint32), bounds, *permutations(count, 1))[:20]
        bars.at_least(
            f"sign_{name}_bit_identical", float((mine == np.array([one.hashvalues for one in oracle])).mean()), 1
        )


def bench_recall(bars: Bars, folder: Path, archive: Path) -> None:
    """Real pairs by similarity against the S-curve, over twenty seeds; then what the stage itself links where links are checked."""
    with tarfile.open(archive) as tar:
        texts = [file.read().decode() for one in tar if one.isfile() and (file := tar.extractfile(one))]
    data, offsets = buffers(pa.array(texts))
    for preset, values in MINHASH_PRESETS.items():
        ngram, bands, rows = values["ngram"], values["bands"], values["rows"]
        hashes, bounds = shingles(data, offsets, ngram)
        sets = [np.unique(hashes[low:high]) for low, high in pairwise(bounds.tolist())]
        flat, edges = np.concatenate(sets), np.cumsum([0, *map(len, sets)])
        one, other = np.triu_indices(len(sets), 1)
        similarity = set_jaccards(flat, edges, flat, edges, one, other)
        near = similarity >= 0.3
        found = np.zeros((20, int(near.sum())), bool)
        for seed in range(len(found)):
            keys = band_keys(signatures(data, offsets, ngram, bands * rows, seed), bands)
            met = np.zeros(len(one), bool)
            for start in range(0, len(one), 50_000):
                span = slice(start, start + 50_000)
                met[span] = (keys[one[span]] == keys[other[span]]).any(axis=1)
            found[seed] = met[near]
        print(f"{preset}: recall by Jaccard similarity, {len(found)} seeds")
        for low in np.arange(0.3, 1.0, 0.1):
            chosen = (similarity[near] >= low) & (similarity[near] < low + 0.1 + (low > 0.85))
            by_seed = found[:, chosen].mean(axis=1)
            theory = found_probability(similarity[near][chosen], bands, rows).mean()
            error = by_seed.std(ddof=1) / np.sqrt(len(by_seed))
            print(
                f"  {low:.1f}: {chosen.sum():5d} pairs, found {by_seed.mean():.4f}, theory {theory:.4f}, +- {error:.4f}"
            )
            bars.at_most(f"recall_{preset}_{low:.1f}_off", abs(by_seed.mean() - theory), 4 * error + 0.002)
        check_links(bars, folder / f"checked_{preset}", preset, texts)


def check_links(bars: Bars, folder: Path, preset: str, texts: list[str]) -> None:
    """The edges that `dedup_fuzzy` writes, by the sets of word n-grams themselves: none is below the threshold, none above it is missing.

    Missing would be a pair that shares a key. Every document is compared with all that it shares one with, which `pairs_per_document` bounds.
    """
    settings = {"minhash_sign.preset": preset, "dedup_fuzzy.min_jaccard": 0.8}
    everyone = {"dedup_fuzzy.pairs_per_document": len(texts)}
    run = synthetic.make_run(folder, texts, settings | everyone, len(texts) // 4 + 1)
    stages(run, "minhash_sign", "dedup_fuzzy")
    signatures = need(run.store, run.task("minhash_sign", run.segments[0].partition)).of(Kind.SIGNATURES)
    nodes = np.concatenate([(at << ROW_BITS) + np.arange(file.rows) for at, file in enumerate(signatures)])
    keys = np.array([row["keys"] for file in signatures for row in read_rows(run.store, file.path)], np.uint64)
    at = {node: place for place, node in enumerate(nodes.tolist())}
    edges = {
        (min(pair), max(pair))
        for file in need(run.store, run.task("dedup_fuzzy")).of(Kind.EDGES)
        for row in read_rows(run.store, file.path)
        for pair in [(at[row["big"]], at[row["small"]])]
    }
    met = {
        (place, int(other))
        for place in range(len(keys))
        for other in place + 1 + np.flatnonzero((keys[place + 1 :] == keys[place]).any(axis=1))
    }
    sets = [ngrams(text, MINHASH_PRESETS[preset]["ngram"]) for text in texts]
    near = {pair for pair in met | edges if jaccard(*(sets[one] for one in pair)) >= 0.8}
    print(f"{preset}: {len(met)} pairs share a key, {len(near & met)} of them are near; the stage linked {len(edges)}")
    bars.at_least(f"precision_checked_{preset}", len(edges & near) / len(edges), 1)
    bars.at_most(f"lost_checked_{preset}", len(near - edges), 0)


def ngrams(text: str, ngram: int) -> set[tuple[str, ...]]:
    """A text's word n-grams themselves, without a hash."""
    words = normalize(text).split()
    n = min(ngram, max(len(words), 1))
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def stages(run: Run, *names: str) -> Cost:
    """Run stages in one process of their own."""
    return cost([sys.executable, "-m", "perf.dedup", "--stages", *names, "--recipe", run.uri])


def run_stages(uri: str, names: list[str]) -> None:
    run = open_run(uri)
    for name in names:
        for task in run.tasks().values():
            if task.stage == name:
                start = time.monotonic()
                importlib.import_module(f"pipelines.{name}").run(Job(run, task, Attempt(run, task)))
                print(f"{name} {task.partition}: {time.monotonic() - start:.1f} s", flush=True)


def kept(run: Run, stage: str) -> int:
    return need(run.store, run.task(stage)).rows.kept


def bench_peer(bars: Bars, folder: Path, where: Path, documents: int) -> None:
    """Sign to kept ids, ours and datatrove's, on the same documents."""
    run = synthetic.make_run(folder / "peer", synthetic.texts(documents, 300), {})
    ours = stages(run, "minhash_sign", "dedup_fuzzy")
    source = Path(run.store.root) / need(run.store, run.task("filter", run.segments[0].partition)).files[0].path
    peer = Path(__file__).parent / "peers" / "datatrove_minhash.py"
    files = str(len(list(source.parent.glob("*.parquet"))))
    theirs = cost(
        [str(peer_python(where)), str(peer), str(source.parent), str(folder / "datatrove"), files, str(CORES)]
    )
    print(
        f"fuzzy, {documents:,} documents: ours {ours.processor:.0f} s of processor, {ours.wall:.0f} s, {kept(run, 'dedup_fuzzy'):,} kept"
    )
    print(f"datatrove {theirs.processor:.0f} s of processor, {theirs.wall:.0f} s")
    bars.at_least("fuzzy_vs_datatrove", min(theirs.processor / ours.processor, theirs.wall / ours.wall), 5)


def bench_million(bars: Bars, folder: Path, documents: int, repeats: int) -> None:
    """Memory at size, and what a further document costs between a tenth and half of it, and from there on: start-up is in neither.

    The sizes are measured in turn, several times, and the least of each counts: whatever else the machine does only adds to it.
    """
    sizes = (documents // 10, documents // 2, documents)
    runs = [synthetic.make_run(folder / f"m{size}", synthetic.texts(size, 200), {}) for size in sizes]
    turns: list[list[Cost]] = []
    for turn in range(repeats):
        turns.append([again(run, "minhash_sign", "dedup_fuzzy") for run in runs])
        for size, run, one in zip(sizes, runs, turns[-1], strict=True):
            print(f"turn {turn + 1}, fuzzy, {size:,} documents: {one}, {kept(run, 'dedup_fuzzy'):,} kept")
    bars.at_most("fuzzy_1m_gib", max(turn[-1].memory for turn in turns) / GIB, 8)
    growths = {}
    for kind in TIMES:
        least = [min(getattr(cost, kind) for cost in costs) for costs in zip(*turns, strict=True)]
        growths[kind] = growth(sizes, least)
        print(f"{kind} seconds, least of each size: {least}; later documents to earlier ones: {growths[kind]:.3f}")
    bars.at_most("fuzzy_time_a_document_1m_vs_100k", growths["processor"], 1.1)


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """What a further document costs between the second size and the third, to what it costs between the first and the second."""
    few, many = (
        (later - earlier) / (size - smaller)
        for (earlier, later), (smaller, size) in zip(pairwise(seconds), pairwise(sizes), strict=True)
    )
    return many / few


def again(run: Run, *names: str) -> Cost:
    """Run stages as if they had never run."""
    for task in run.tasks().values():
        if task.stage in names:
            run.store.delete(task.prefix)
    return stages(run, *names)


def bench_substring(bars: Bars, folder: Path, tokens: int) -> None:
    """Ours at size, and the suffix array on the same documents: the same cuts, more memory."""
    documents = tokens // 500
    run = substring_run(folder / "substring", documents, 0)
    ours = stages(run, "dedup_substring")
    made = need(run.store, run.task("dedup_substring"))
    real = sum(count_words(run.store, file) for file in need(run.store, run.task("dedup_fuzzy")).of(Kind.DOCUMENTS))
    print(f"substring, {real / 1e6:.1f} M tokens: {ours}, {made.metrics}")
    bars.at_most("substring_gib", ours.memory / GIB, 8)
    cuts = [read_cuts(run.store, file) for file in made.of(Kind.CUTS)]
    alone = substring_run(folder / "alone", documents, (1 << 31) - 1)
    theirs = stages(alone, "dedup_substring")
    other = [read_cuts(alone.store, file) for file in need(alone.store, alone.task("dedup_substring")).of(Kind.CUTS)]
    print(
        f"suffix array: {theirs}; {real / ours.wall / 1e6:.1f} M tokens a second beside its {real / theirs.wall / 1e6:.2f}"
    )
    bars.at_least("substring_vs_suffix_array", theirs.wall / ours.wall, 10)  # aim: 30
    bars.at_least("substring_same_cuts", float(sorted(cuts) == sorted(other)), 1)
    bars.at_least("substring_memory_of_suffix_array_vs_ours", theirs.memory / ours.memory, 3)


def substring_run(folder: Path, documents: int, one_process_bytes: int) -> Run:
    settings: dict[str, object] = {"dedup_substring.one_process_bytes": one_process_bytes}
    return synthetic.make_run(folder, synthetic.texts(documents, 500), settings, stage="dedup_fuzzy")


def count_words(store: Store, file: File) -> int:
    """The words of a synthetic file: one space stands between each two."""
    with store.open_input(file.path) as source:
        text = pq.read_table(source, columns=["text"])["text"]
    return int(pc.sum(pc.count_substring(text, " ")).as_py()) + len(text)


def read_cuts(store: Store, file: File) -> list[tuple[Any, ...]]:
    with store.open_input(file.path) as source:
        table = pq.read_table(source, columns=["id", "start", "end"])
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))


PARTS = tuple(BENCHES["dedup"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--documents", type=int, default=200_000, help="beside datatrove")
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=4, help="of the million")
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GRISTMILL_TEST_DATA", "../shared/data")))
    parser.add_argument("--where", type=Path, default=Path(".bench"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--stages", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stages:
        run_stages(given.recipe, given.stages)
        return 0
    folder = given.where / "dedup"
    archive = given.data / "dedup" / "spdx_license_texts_819.tar.xz"
    if not given.part:
        shutil.rmtree(folder, ignore_errors=True)
        commands = {name: [sys.executable, "-m", "perf.dedup", *sys.argv[1:], "--part", name] for name in given.only}
        if "kill" in commands:
            commands["kill"] = [sys.executable, "-m", "perf.kills", str(folder / "kill"), str(archive)]
        bars = run_parts(commands, BENCHES["dedup"])
        print(f"\nshort or failed: {', '.join(bars.short)}" if bars.short else "\nevery part reached its bars")
        return bars.code
    bars = Bars()
    chosen = {
        "sign": lambda: bench_sign(bars),
        "recall": lambda: bench_recall(bars, folder, archive),
        "peer": lambda: bench_peer(bars, folder, given.where, given.documents),
        "million": lambda: bench_million(bars, folder, given.million, given.repeats),
        "substring": lambda: bench_substring(bars, folder, given.tokens),
    }
    chosen[given.part]()
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
