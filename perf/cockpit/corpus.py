"""The corpus half of the synthetic store: what the stages from `crawl` to `decontaminate` write of ten million documents.

Files have the form, the sizes and the row groups that the stages give them: 4,096 documents and 256 rows. Manifests are
committed through the contract's own types. Two kinds of file are left out, because no page reads them: the pages of
`crawl` and the signatures of `minhash_sign`.
"""

import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract import results
from contract.cuts import CUTS
from contract.documents import Part
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, Rows
from contract.output import write_file
from contract.plan import WHOLE, Run
from contract.results import Result
from contract.schema import DOCUMENTS, DROPS, LANGUAGES, SCORED, SNIPPET_CHARS, STEPS, Drop
from contract.settings.filter import Filter
from contract.stages import STAGES
from contract.store import Store
from contract.tables import BATCH_ROWS
from perf.cockpit import pool as pools
from pipelines.rules.steps import count_steps
from pipelines.score import GROUP_ROWS
from pipelines.spark.documents import DROP_ROWS, Counts, Output, total
from pipelines.spark.places import MILLION, ids_of, listed, write_places
from pipelines.spark.tables import TableWriter, group_rows

SNAPSHOT_STAGES = ("crawl", "extract", "langid", "score", "filter", "minhash_sign")
CORPUS_STAGES = ("dedup_url", "dedup_fuzzy", "dedup_substring", "decontaminate")
ONE_OF = 9  # `langid` drops one document of so many
EXTRACTED_BYTES = 12  # bytes of HTML for one of text
DAY_S, MONDAY_S = 86_400, 1_772_409_600
SHARES = {"dedup_url": 0.03, "dedup_fuzzy": 0.25, "dedup_substring": 0.004, "decontaminate": 0.0006}
CUT_SHARE, CUT_AT, CUT_BYTES = 0.15, 60, 90
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """How large a corpus is: so many files in each segment, with so many scored documents in each.

    hostile: texts of which each document has one in its title, its address and its text.
    """

    segments: int
    files: int
    rows: int = GROUP_ROWS
    seed: int = 0
    hostile: tuple[str, ...] = ()

    @property
    def documents(self) -> int:
        return self.segments * self.files * self.rows


def shape_of(documents: int, segments: int = 60) -> Shape:
    """The shape of a corpus of at least so many scored documents, in files as the stages write them."""
    return Shape(segments, -(-documents // (segments * GROUP_ROWS)))


@dataclass(frozen=True)
class Place:
    """Where the attempts of a run write: stage -> the folder of its attempt, in the order of the segments."""

    store: Store
    folders: dict[str, list[str]]

    def folder(self, stage: str, segment: int) -> str:
        """A corpus stage has one folder for all segments."""
        return self.folders[stage][segment if stage in SNAPSHOT_STAGES else 0]


@dataclass
class Written:
    """Stage -> what one worker has written of it for one segment."""

    outputs: dict[str, list[Output]] = field(default_factory=lambda: defaultdict(list))

    def add(self, stage: str, output: Output) -> None:
        self.outputs[stage].append(output)


def write(run: Run, shape: Shape, processes: int = 2) -> dict[str, Rows]:
    """Commit every stage up to `decontaminate` of a run with as many segments as `shape` has.

    Returns what each stage read, kept and dropped, over all segments.
    """
    attempts = {
        stage: [Attempt(run, run.task(stage, one.partition)) for one in run.segments]
        if stage in SNAPSHOT_STAGES
        else [Attempt(run, run.task(stage))]
        for stage in (*SNAPSHOT_STAGES, *CORPUS_STAGES)
    }
    folders = {stage: [f"{one.prefix}/{one.id}" for one in tries] for stage, tries in attempts.items()}
    place, names = Place(run.store, folders), [run.recipe.snapshots[0], *(one.files[0].name for one in run.segments)]
    work = [(place, shape, run.recipe.filter, names[0], names[1 + index], index) for index in range(shape.segments)]
    if processes == 1:
        done = [segment(*one) for one in work]
        _index(place, done, map)
    else:
        spawned = multiprocessing.get_context("spawn")  # a fork would share the locks of pyarrow's threads
        with ProcessPoolExecutor(processes, mp_context=spawned) as executor:
            done = list(executor.map(segment, *zip(*work, strict=True)))
            _index(place, done, executor.map)
    Attempt(run, run.task("curate", WHOLE)).commit([], result=results.Curate(sources=0))
    return {stage: _commit(stage, attempts[stage], done) for stage in attempts}


def _index(place: Place, done: list[Written], each: Callable[..., Iterable[Output]]) -> None:
    """Write the index of what the corpus stages dropped. each: `map`, or that of an executor."""
    for stage in CORPUS_STAGES:
        groups = _indexed(stage, [output for one in done for output in one.outputs[stage]])
        names = [f"{number:05d}" for number in range(len(groups))]
        folder = place.folder(stage, 0)
        stores, folders = [place.store] * len(groups), [folder] * len(groups)
        for output in each(write_places, stores, folders, groups, names):
            done[-1].add(stage, output)


def _commit(stage: str, attempts: list[Attempt], done: list[Written]) -> Rows:
    """Commit one stage: one manifest for each segment, or one for all."""
    outputs = [one.outputs[stage] for one in done]
    if len(attempts) != len(outputs) or stage in CORPUS_STAGES:
        outputs = [[output for one in outputs for output in one]]
    made: list[Manifest] = []
    for attempt, parts in zip(attempts, outputs, strict=True):
        summed = total(parts)
        rows = summed.counts.rows() if stage != "minhash_sign" else Rows()
        made.append(attempt.commit(summed.listed(), rows, _result(stage, summed)))
    return _sum([one.rows for one in made])


def _result(stage: str, output: Output) -> Result | None:
    counts, metrics = output.counts, output.metrics
    match stage:
        case "crawl":
            return results.Crawl(files=1, parts=1)
        case "extract":
            return results.Extract(extracted_twice=counts.kept // 20)
        case "minhash_sign":
            return results.MinhashSign(documents=sum(part.rows for part in output.parts))
        case "dedup_fuzzy":
            return results.DedupFuzzy(clusters=metrics["clusters"])
        case "dedup_substring":
            cut = metrics["documents_cut"]
            return results.DedupSubstring(spans=cut, tokens_cut=cut * CUT_BYTES // 6, documents_cut=cut)
        case "decontaminate":
            return results.Decontaminate(benchmark_ngrams=1_000_000)
    return None


def _sum(rows: list[Rows]) -> Rows:
    reasons: Counter[str] = Counter()
    for one in rows:
        reasons.update(one.reasons)
    counts = {name: sum(getattr(one, name) for one in rows) for name in Counts.__dataclass_fields__ if name in COUNTED}
    return Rows(dropped=reasons.total(), reasons=dict(reasons), **counts)


COUNTED = ("read", "kept", "bytes_read", "bytes_kept")


@cache
def _pool(rows: int, settings: str, seed: int) -> pools.Pool:
    return pools.make(rows, Filter.model_validate_json(settings), seed)


def segment(place: Place, shape: Shape, settings: Filter, snapshot: str, file: str, index: int) -> Written:
    """Write what all stages have of one segment. file: the crawl file's name."""
    pool = _pool(pools.SLICES * shape.rows, settings.model_dump_json(), shape.seed)
    written = Written()
    scored: list[pa.Table] = []
    for number in range(shape.files):
        made = _File(place, shape, pool, snapshot, file, index, number)
        made.write(written)
        scored.append(made.scored)
    written.add("filter", _steps(place, settings, pa.concat_tables(scored), index))
    for stage in SNAPSHOT_STAGES:
        for number, files in enumerate(_indexed(stage, written.outputs[stage])):
            folder = place.folder(stage, index)
            written.add(stage, write_places(place.store, folder, files, f"{number:05d}"))
    return written


def _indexed(stage: str, outputs: list[Output]) -> list[list[File]]:
    """The files that the index of a stage names, in the groups of one table each; none for a stage without drops."""
    return group_rows(listed(total(outputs), stage == "score"), MILLION) if STAGES[stage].drops else []


def _steps(place: Place, settings: Filter, scored: pa.Table, index: int) -> Output:
    """What every step of a threshold would move in a segment, a row group for each threshold."""
    ids = pa.chunked_array([ids_of(chunk) for chunk in scored["id"].chunks], pa.binary(16))
    counted = count_steps(scored.set_column(0, "id", ids), settings)
    lengths = counted.group_by("setting").aggregate([([], "count_all")])
    path = f"{place.folder('filter', index)}/{Kind.STEPS}-00000.parquet"
    writer = TableWriter(place.store, path, Kind.STEPS, STEPS)
    at = 0
    for count in lengths["count_all"].to_pylist():
        writer.write_table(counted.slice(at, count))
        at += count
    return Output(writer.close())


class _File:
    """The documents of one file on their way through the stages."""

    def __init__(
        self, place: Place, shape: Shape, pool: pools.Pool, snapshot: str, file: str, index: int, number: int
    ) -> None:
        self.place, self.pool, self.index, self.number = place, pool, index, number
        serial = index * shape.files + number
        start = serial % pools.SLICES * shape.rows
        self.slice = slice(start, start + shape.rows)
        self.random = np.random.default_rng([shape.seed, index, number])
        extracted = shape.rows * ONE_OF // (ONE_OF - 1)
        self.extracted = self._documents(extracted, serial * extracted, snapshot, file, shape.hostile)
        spoken = np.arange(extracted) % ONE_OF != ONE_OF - 1
        spoken[np.flatnonzero(spoken)[shape.rows :]] = False
        self.spoken: Mask = spoken
        measured = pool.columns.slice(start, shape.rows)
        kept = self.extracted.filter(pa.array(spoken))
        self.ids = kept["id"].to_numpy(zero_copy_only=False)
        size = pc.binary_length(kept["text"]).cast(pa.int64())
        columns = {name: kept[name] for name in DOCUMENTS.names} | {name: measured[name] for name in LANGUAGES.names}
        columns |= {name: measured[name] for name in measured.column_names} | {"bytes": size}
        self.scored = pa.table({name: columns[name] for name in SCORED.names}, schema=SCORED)
        self.sizes = size.to_numpy().copy()
        self.cut = np.zeros(0, int)

    def _documents(self, rows: int, first: int, snapshot: str, file: str, hostile: tuple[str, ...] = ()) -> pa.Table:
        """Documents as `extract` writes them. Their places in the pool are those of the scored ones, and some more."""
        pool, random = self.pool, self.random
        serials = np.arange(rows)
        self.places = (self.slice.start + serials - serials // ONE_OF) % pool.rows
        keys = random.bytes(16 * rows).hex()
        ids = [keys[at : at + 32] for at in range(0, 32 * rows, 32)]
        words = [pool.words.take(pa.array(random.integers(0, pools.WORDS, rows))) for _ in range(3)]
        numbers = pa.array(np.arange(first, first + rows)).cast(pa.string())
        titles = pc.binary_join_element_wise(*words, numbers, " ")
        hosts = pool.names.take(pa.array(pool.hosts[self.places]))
        paths = pc.binary_join_element_wise(hosts, words[0], numbers, "/")
        if hostile:
            titles = pa.array([hostile[one % len(hostile)] for one in range(rows)])
            paths = pc.binary_join_element_wise(titles, pa.scalar("example.org"), titles, numbers, "/")
        columns = {
            "id": pa.array(ids),
            "url": pc.binary_join_element_wise(pa.scalar("https://"), paths, ""),
            "snapshot": pa.array([snapshot]).take(pa.array(np.zeros(rows, int))),
            "date": pa.array(MONDAY_S + random.integers(0, 7 * DAY_S, rows)).cast(pa.timestamp("s", "UTC")),
            "file": pa.array([file]).take(pa.array(np.zeros(rows, int))),
            "offset": pa.array(first * 9_000 + np.cumsum(random.integers(4_000, 14_000, rows))),
            "digest": pa.array(ids[1:] + ids[:1]),
            "title": titles,
            "source": pa.array(["crawl"]).take(pa.array(np.zeros(rows, int))),
            "text": pc.binary_join_element_wise(titles, pool.texts.take(pa.array(pool.bodies[self.places])), "\n"),
        }
        nulls = {one.name: pa.nulls(rows, one.type) for one in DOCUMENTS if one.name not in columns}
        return pa.table({**columns, **nulls}).select(DOCUMENTS.names).cast(DOCUMENTS)

    def write(self, written: Written) -> None:
        """Write the files of every stage, and add them and their counts to `written`."""
        documents = self._extract(written)
        self._langid(written, documents)
        scored = Part(self._table("score", Kind.DOCUMENTS, SCORED, self.scored))
        size = int(self.sizes.sum())
        written.add("score", Output([], Counts(len(self.ids), len(self.ids), size, size), parts=[scored]))
        kept = self.pool.reasons[self.slice] == None  # noqa: E711
        fates = self._fates(~kept, self.pool.reasons[self.slice], self.pool.values[self.slice], None)
        part = self._judged(written, "filter", scored, np.ones(len(kept), bool), kept, fates)
        written.add("minhash_sign", Output(parts=[part]))
        self._corpus_stages(written, part, kept)

    def _extract(self, written: Written) -> Part:
        rows, empty = self.extracted.num_rows, self.extracted.num_rows // 40
        size = int(pc.sum(pc.binary_length(self.extracted["text"])).as_py())
        urls = [f"https://empty-{self.index}.example.org/{self.number}/{one}" for one in range(empty)]
        ids = [f"{self.index:08x}{self.number:08x}{one:016x}" for one in range(empty)]
        blocked = [(f"b{one[1:]}", url.replace("empty", "blocked")) for one, url in zip(ids, urls, strict=True)]
        reasons: Counter[str] = Counter({str(Drop.EXTRACT_EMPTY): empty})
        drops = self._drops("extract", [*zip(ids, urls, strict=True)], str(Drop.EXTRACT_EMPTY))
        part = Part(self._table("extract", Kind.DOCUMENTS, DOCUMENTS, self.extracted))
        read = EXTRACTED_BYTES * size
        written.add("extract", Output(drops, Counts(rows + empty, rows, read, size, reasons), parts=[part]))
        crawled = Counts(
            rows + 2 * empty, rows + empty, read + empty, read, Counter({str(Drop.URL_BLOCKED): empty}),
            Counter({"record_metadata": rows, "record_request": rows}),
        )  # fmt: skip
        written.add("crawl", Output(self._drops("crawl", blocked, str(Drop.URL_BLOCKED)), crawled))
        return part

    def _langid(self, written: Written, documents: Part) -> None:
        named = self.scored.select(LANGUAGES.names)
        rows = np.flatnonzero(self.spoken)
        index = pa.table({"row": rows, **{name: named[name] for name in LANGUAGES.names}})
        schema = pa.schema([("row", pa.int64()), *LANGUAGES])
        gone = self.extracted.filter(pa.array(~self.spoken))
        columns = {name: gone[name].to_pylist() for name in ("id", "url", "text")}
        count = gone.num_rows
        drops = self._rows_dropped(
            "langid", columns["id"], columns["url"], [str(Drop.LANGUAGE)] * count, ["nl 0.91"] * count, [None] * count,
            [text[:SNIPPET_CHARS] for text in columns["text"]], ["nl"] * count,
        )  # fmt: skip
        size = int(self.sizes.sum())
        lost = sum(map(len, columns["text"]))
        counts = Counts(
            self.extracted.num_rows, len(rows), size + lost, size, Counter({str(Drop.LANGUAGE): count} if count else {})
        )
        part = replace(documents, index=self._table("langid", Kind.INDEX, schema, index))
        written.add("langid", Output(drops, counts, parts=[part]))

    def _corpus_stages(self, written: Written, part: Part, left: Mask) -> None:
        """Deduplication and decontamination, each over what the stage before left."""
        reason = {
            "dedup_url": Drop.DUPLICATE_URL, "dedup_fuzzy": Drop.NEAR_DUPLICATE,
            "dedup_substring": Drop.SUBSTRING_TOO_SHORT, "decontaminate": Drop.CONTAMINATED,
        }  # fmt: skip
        for stage, share in SHARES.items():
            hit = left & (self.random.random(len(left)) < share)
            clusters = 0
            fates: dict[str, list[Any]]
            if stage == "dedup_fuzzy":
                hit, values, stays, clusters = self._clusters(left, hit)
                fates = self._fates(hit, str(reason[stage]), values, stays)
            else:
                stays = np.full(len(left), self.ids[left & ~hit][0] if stage == "dedup_url" else None, object)
                values = np.full(len(left), {"dedup_substring": "12", "decontaminate": "hellaswag 0.91"}.get(stage, ""))
                fates = self._fates(hit, str(reason[stage]), values, stays)
            after = left & ~hit
            if stage == "dedup_substring":
                part = replace(part, cuts=self._cuts(after))
            part = self._judged(written, stage, part, left, after, fates, clusters)
            self.sizes[self.cut] -= CUT_BYTES
            self.cut = self.cut[:0]
            left = after

    def _clusters(self, left: Mask, hit: Mask) -> tuple[Mask, npt.NDArray[np.object_], npt.NDArray[np.object_], int]:
        """Near duplicates end in the same text; the first of them that was not drawn stays."""
        bodies = self.pool.bodies[self.slice]
        stays: dict[int, str] = {}
        for body, one in zip(bodies[left & ~hit].tolist(), self.ids[left & ~hit].tolist(), strict=True):
            stays.setdefault(body, one)
        hit = hit & np.isin(bodies, [*stays])
        smallest = dict(stays)
        for body, one in zip(bodies[hit].tolist(), self.ids[hit].tolist(), strict=True):
            smallest[body] = min(smallest[body], one)
        values, kept = (
            np.array([known.get(body, "") for body in bodies.tolist()], object) for known in (smallest, stays)
        )
        return hit, values, kept, len(np.unique(bodies[hit]))

    def _cuts(self, left: Mask) -> Any:
        rows = np.flatnonzero(left & (self.random.random(len(left)) < CUT_SHARE) & (self.sizes > CUT_AT + CUT_BYTES))
        table = pa.table(
            {
                "row": rows,
                "id": self.ids[rows],
                "start": np.full(len(rows), CUT_AT),
                "end": CUT_AT + CUT_BYTES + rows * 0,
            },
            schema=CUTS,
        )
        self.cut = rows
        return self._table("dedup_substring", Kind.CUTS, CUTS, table) if len(rows) else None

    def _fates(self, hit: Mask, reason: Any, values: Any, stays: Any) -> dict[str, list[Any]]:
        """The columns of the drops rows that are not those of the documents."""
        count = int(hit.sum())
        return {
            "reason": [reason] * count if isinstance(reason, str) else reason[hit].tolist(),
            "value": values[hit].tolist(),
            "duplicate_of": [None] * count if stays is None else stays[hit].tolist(),
        }

    def _judged(
        self, written: Written, stage: str, part: Part, before: Mask, left: Mask, fates: dict[str, list[Any]],
        clusters: int = 0,
    ) -> Part:  # fmt: skip
        """Write the index and the drops of a stage that only judges, and return the part as it leaves it."""
        gone = self.scored.filter(pa.array(before & ~left))
        snippets = [text[:SNIPPET_CHARS] for text in gone["text"].to_pylist()]
        drops = self._rows_dropped(
            stage, gone["id"].to_pylist(), gone["url"].to_pylist(), fates["reason"], fates["value"],
            fates["duplicate_of"], snippets, gone["language"].to_pylist(),
        )  # fmt: skip
        if gone.num_rows:
            schema = pa.schema([("row", pa.int64())])
            part = replace(part, index=self._table(stage, Kind.INDEX, schema, pa.table({"row": np.flatnonzero(left)})))
        cut = len(self.cut)
        kept = int(self.sizes[left].sum())
        counts = Counts(
            int(before.sum()), int(left.sum()), int(self.sizes[before].sum()), kept - cut * CUT_BYTES,
            Counter(fates["reason"]),
        )  # fmt: skip
        metrics = Counter({"clusters": clusters, "documents_cut": cut})
        written.add(stage, Output(drops, counts, metrics, parts=[part] if left.any() else []))
        return part

    def _drops(self, stage: str, rows: list[tuple[str, str]], reason: str) -> list[Any]:
        """Drops of pages that never became a document."""
        ids, urls = [list(column) for column in zip(*rows, strict=True)] if rows else ([], [])
        count = len(ids)
        return self._rows_dropped(
            stage, ids, urls, [reason] * count, [""] * count, [None] * count, [""] * count, [None] * count
        )

    def _rows_dropped(self, stage: str, *columns: list[Any]) -> list[Any]:
        ids, urls, reasons, values, stays, snippets, languages = columns
        if not ids:
            return []
        made = pa.table([ids, urls, [stage] * len(ids), reasons, values, stays, snippets, languages], schema=DROPS)
        return [self._table(stage, Kind.DROPS, DROPS, made)]

    def _table(self, stage: str, kind: Kind, schema: pa.Schema, table: pa.Table) -> Any:
        """Write a table in the row groups of `TableWriter`, but to memory first: it writes in many small pieces."""
        folder = self.place.folder(stage, self.index)
        path = f"{folder}/{kind}-{self.index:05d}-{self.number:05d}.parquet"
        step = {Kind.DOCUMENTS: BATCH_ROWS, Kind.DROPS: DROP_ROWS}.get(kind, table.num_rows)
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema, compression=codecs(schema), write_page_checksum=True) as writer:
            writer.write_table(table, row_group_size=step)
        return write_file(self.place.store, path, kind, sink.getvalue(), table.num_rows)


def codecs(schema: pa.Schema) -> dict[str, str]:
    """zstd for texts, as stages write everything; lz4 for the rest, because zstd takes twice as long for 256 numbers."""
    leaves = {f"{one.name}.list.element" if pa.types.is_list(one.type) else one.name: one for one in schema}
    return {leaf: "zstd" if one.name in ("text", "snippet") else "lz4" for leaf, one in leaves.items()}
