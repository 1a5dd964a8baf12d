"""The crawl files of each snapshot, cut into segments. Their identities are the root of every fingerprint.

A source is a Common Crawl mirror (it has `collinfo.json` and `crawl-data/<snapshot>/warc.paths.gz`), or a folder or
store prefix. A folder is one snapshot, named after the folder and the week in which its first file was captured. A
folder's file is identified by its content, so a folder that was copied, touched, or moved without a new name is the
same snapshot of the same files (see `contract.content`).
"""

import datetime
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from contract import content, fetch
from contract.errors import InputError, StoreError
from contract.masking import masked
from contract.recipe import Recipe
from contract.stages import STAGES
from contract.store import Entry, Store, split_uri

CRAWL_FILE = re.compile(r"\.(warc|wet|arc)(\.gz)?\Z|\.warc\.wet(\.gz)?\Z")
FEWEST_FILES = 10  # in a segment that is not the last: about 10 GB of Common Crawl
MAX_SEGMENTS = 1000  # of a run, over all its crawls: by default Airflow maps at most 1,024 tasks at once
LISTING_BYTES = 64 << 20  # of an unpacked list of paths; Common Crawl's lists have 12 MB
DATED_FILES = 8  # so many of a folder's first files are searched for a capture date
SNAPSHOT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]*-([0-9]{4})-([0-9]{2})\Z")


@dataclass(frozen=True)
class Source:
    """One crawl file. `name` identifies it within its snapshot, `content` is a digest (see `contract.content`).

    A mirror's list gives neither size nor digest, so they are 0 and empty. Such files never change; their URI without
    secrets identifies them, so that a new password or signature does not make a new file.
    """

    uri: str
    name: str
    size: int
    content: str

    @property
    def identity(self) -> str:
        """The file's part of a fingerprint."""
        return f"{self.name}:{self.size}:{self.content}" if self.content else masked(self.uri)


@dataclass(frozen=True)
class Segment:
    """Some files of one snapshot: the unit that runs, fails and is cleared by itself."""

    snapshot: str
    index: int
    files: tuple[Source, ...]

    @property
    def partition(self) -> str:
        return f"{self.snapshot}.{self.index:05d}"


def snapshot_date(key: str) -> datetime.date:
    """The Monday of the ISO week at the end of a snapshot's name: CC-MAIN-2024-10 -> 2024-03-04.

    Raises InputError for a name without year and week.
    """
    match = SNAPSHOT_NAME.match(key)
    if not match:
        raise InputError(f"crawl {key!r}: a name ends in year and ISO week, for example CC-MAIN-2024-10")
    try:
        return datetime.date.fromisocalendar(int(match[1]), int(match[2]), 1)
    except ValueError:
        raise InputError(f"crawl {key!r}: there is no ISO week {match[2]} in {match[1]}") from None


def newest_crawl(recipe: Recipe) -> str:
    """The newest of the crawls that a recipe names."""
    return max(recipe.snapshots, key=lambda key: (snapshot_date(key), key))


def list_snapshots(source: str, patience_s: float = fetch.PATIENCE_S) -> list[str]:
    """The snapshots that a source offers, newest first. Retries an unreachable source for `patience_s` seconds."""
    if not is_common_crawl(source):
        return [_folder_snapshot(source, _folder_files(source))]
    try:
        names = [str(row["id"]) for row in json.loads(_mirror_get(source, "collinfo.json", patience_s))]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{source}/collinfo.json: is not Common Crawl's list of crawls ({error}); check crawl.source"
        ) from None
    # Common Crawl's earliest crawls have other names. They are ARC files, which are refused anyway.
    return sorted((name for name in names if SNAPSHOT_NAME.match(name)), key=snapshot_date, reverse=True)


def list_segments(recipe: Recipe, patience_s: float = fetch.PATIENCE_S) -> list[Segment]:
    """Every segment of every snapshot that the recipe names, or of the source's newest one if it names none.

    Retries an unreachable source for `patience_s` seconds.
    """
    crawl = recipe.crawl
    snapshots = tuple(dict.fromkeys(recipe.snapshots)) or tuple(list_snapshots(crawl.source, patience_s)[:1])
    files_of: dict[str, list[Source]] = {}
    for snapshot in snapshots:
        snapshot_date(snapshot)
        files_of[snapshot] = _snapshot_files(crawl.source, snapshot, crawl.max_files, patience_s)
    step = crawl.files_per_segment or segment_size([len(files) for files in files_of.values()])
    segments = [
        Segment(snapshot, start // step, tuple(files[start : start + step]))
        for snapshot, files in files_of.items()
        for start in range(0, len(files), step)
    ]
    if not segments:
        raise InputError(f"crawl.source {crawl.source}: lists no crawl files; check the source and the crawl's name")
    return segments


def segment_size(counts: Sequence[int]) -> int:
    """Files per segment, given each crawl's number of files: 10, doubled until there are at most MAX_SEGMENTS segments.

    Doubling lets a source grow up to twice its files before its segments, and with them the finished tasks, change.
    """
    size = FEWEST_FILES
    while size < max(counts, default=0) and sum(-(-count // size) for count in counts) > MAX_SEGMENTS:
        size *= 2
    return size


def list_outside(recipe: Recipe) -> dict[str, str]:
    """The files that a recipe names besides the crawl: `stage.key` -> digest of their names and contents.

    Raises InputError that names the key if a file does not exist or a folder has no files.
    """
    keys = (f"{stage}.{key}" for stage in STAGES for key in recipe.section(stage).outside())
    return {key: outside_digest(recipe, key) for key in keys}


MODELS = {
    "pretrain.start_from": ("config.json",),
    "pretrain.distill.teacher": ("config.json", "manifest.json"),
    "sft.start_from": ("config.json",),
    "reward.start_from": ("config.json",),
}
"""Setting that names a model -> the names of files of which one shows that a model is there."""
OTHERS = "benchmark.others."
"""How the settings begin that name a folder of `transformers` each."""


def outside_digest(recipe: Recipe, key: str) -> str:
    """The digest of the names and contents of the files that the setting at a dotted key names.

    Raises InputError that names the key if there is no file.
    """
    stage, _, name_in_section = key.partition(".")
    uri = recipe.section(stage).outside()[name_in_section]
    store, name = split_uri(uri)
    file = store.entry(name)
    entries = [file] if file else store.files(name)
    if not entries:
        why = "holds no readable file" if store.exists(name) else "does not exist"
        raise InputError(f"{key}: {uri} {why}; check the path, or leave the key out")
    shows = ("config.json",) if key.startswith(OTHERS) else MODELS.get(key)
    if shows and not any(PurePosixPath(entry.path).name in shows for entry in entries):
        raise InputError(f"{key}: {uri} holds no {' or '.join(shows)}, so no model is there; check the path")
    digest_of = content.digests(store, entries, name, content.WHOLE_BYTES)
    listing = "".join(f"{entry.path}:{entry.size}:{digest_of[entry.path]}\n" for entry in entries)
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def check_crawl_files(segment: Segment) -> None:
    """Raise InputError if a crawl file is gone or changed since the run was resolved; mirrors are not checked."""
    for file in segment.files:
        if not file.content:
            continue
        store, name = split_uri(file.uri)
        now = store.entry(name)
        if now is None:
            raise InputError(f"{file.uri}: the crawl file is gone; bring it back, or start a new run without it")
        if now.size != file.size or content.digests(store, [now], name)[name] != file.content:
            raise InputError(f"{file.uri}: the crawl file changed since the run was resolved; start a new run")


def file_size(source: Source, retries: int = 8) -> int:
    """Bytes of a crawl file, from its server or store if the listing had no size; 0 if the server does not say."""
    if source.size:
        return source.size
    if source.uri.startswith(("http://", "https://")):
        return fetch.size(source.uri, retries)
    store, name = split_uri(source.uri)
    return store.size(name)


def dump_inputs(segments: list[Segment], outside: dict[str, str]) -> bytes:
    """The crawl files and outside files that a run was resolved against, as the JSON of its inputs.json."""
    return json.dumps({"segments": [asdict(segment) for segment in segments], "outside": outside}, indent=1).encode()


def load_inputs(data: bytes) -> tuple[list[Segment], dict[str, str]]:
    """The inverse of `dump_inputs`.

    Raises InputError for JSON that another version of Gristmill wrote, and for an invalid snapshot name, because paths
    are built from it.
    """
    try:
        values = json.loads(data)
        segments = [
            Segment(row["snapshot"], row["index"], tuple(Source(**file) for file in row["files"]))
            for row in values["segments"]
        ]
        for name in {segment.partition.rpartition(".")[0] for segment in segments}:
            snapshot_date(name)
        return segments, values["outside"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InputError(
            "inputs.json: another version of Gristmill resolved this run; resolve its recipe again"
        ) from None


def is_common_crawl(source: str) -> bool:
    """True for HTTP sources, and for S3 or file mirrors that hold a collinfo.json."""
    if source.startswith(("http://", "https://")):
        return True
    Store(source).reach()
    return Store(source).exists("collinfo.json")


def _mirror_get(source: str, path: str, patience_s: float = fetch.PATIENCE_S) -> bytes:
    if not source.startswith(("http://", "https://")):
        try:
            return Store(source).read_bytes(path)
        except FileNotFoundError:
            raise InputError(f"{source}/{path}: no such file; check crawl.source and the crawl's name") from None
    if path == "collinfo.json" and source.rstrip("/") == "https://data.commoncrawl.org":
        return fetch.get("https://index.commoncrawl.org/collinfo.json", patience_s)
    return fetch.get(f"{source.rstrip('/')}/{path}", patience_s)


def _snapshot_files(source: str, snapshot: str, limit: int | None, patience_s: float) -> list[Source]:
    """The first `limit` files of a snapshot."""
    if is_common_crawl(source):
        listed = f"crawl-data/{snapshot}/warc.paths.gz"
        try:
            listing = _inflate(_mirror_get(source, listed, patience_s)).decode().split()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(
                f"{source}/{listed}: is not a gzipped list of paths ({error}); check crawl.source"
            ) from None
        astray = next((path for path in listing[:limit] if {"", ".", ".."} & set(unquote(path).split("/"))), None)
        if astray is not None:
            raise InputError(
                f"{source}/{listed}: lists {astray!r}, which is not a path below the source; check crawl.source"
            )
        return [Source(f"{source.rstrip('/')}/{path}", path, 0, "") for path in listing[:limit]]
    files = _folder_files(source)
    only = _folder_snapshot(source, files)
    if snapshot != only:
        raise InputError(f"{source} holds the crawl {only}, not {snapshot}; leave `snapshots` empty or name {only}")
    store = Store(source)
    digest_of = content.digests(store, files[:limit])
    return [Source(store.full(file.path), file.path, file.size, digest_of[file.path]) for file in files[:limit]]


def _inflate(data: bytes) -> bytes:
    """Unpack gzip. Raises OSError above LISTING_BYTES, so that a hostile mirror's small file cannot fill the memory."""
    with gzip.open(io.BytesIO(data)) as file:
        text = file.read(LISTING_BYTES + 1)
    if len(text) > LISTING_BYTES:
        raise OSError(f"more than {LISTING_BYTES:,} bytes")
    return text


def _folder_files(source: str) -> list[Entry]:
    store = Store(source)
    try:
        entries = store.files()
    except StoreError as error:
        raise InputError(f"crawl.source {source}: cannot be listed: {error}") from error
    files = [entry for entry in entries if CRAWL_FILE.search(entry.path)]
    if not files:
        what = (
            f"none of its {len(entries)} files ends in .warc, .wet or .arc (.gz or not)"
            if entries
            else "it is missing or empty"
        )
        raise InputError(f"crawl.source {source}: {what}; name a folder or prefix with WARC or WET files")
    return files


def _folder_snapshot(source: str, files: list[Entry]) -> str:
    """A folder's snapshot name: the folder's name and the week of the first capture date in its first files.

    Files that are added later do not change it, unless they sort first. If none of the first DATED_FILES files has a
    capture date, the oldest modification time is used.
    """
    base = re.sub(r"[^A-Za-z0-9]+", "-", source.rstrip("/").rpartition("/")[2]).strip("-").upper() or "FOLDER"
    store = Store(source)
    dates = (content.capture_date(store, file.path) for file in files[:DATED_FILES])
    oldest = datetime.datetime.fromtimestamp(min(file.modified for file in files) / 1e9, datetime.UTC)
    week = (next(filter(None, dates), None) or oldest.date()).isocalendar()
    return f"{base}-{week.year}-{week.week:02d}"
