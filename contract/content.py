"""Digests that identify a file by its content and not by its times, so that a copied or touched file is the same file.

On S3 the digest is the object's ETag, which a listing includes. Elsewhere it is computed from bytes: all bytes of a
file up to a size limit; of a larger file the first and last 64 KiB and 16 stretches of 4 KiB between them. The size is
compared beside the digest. The ends change if a crawl file is written again: gzip's header and checksum, the records'
dates, the length. The stretches catch an incomplete download over several connections, which may have its full length
and both ends but holes between them. A large file costs 18 reads, which threads wait for in parallel.
"""

import datetime
import hashlib
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from contract.store import Entry, Store

END_BYTES = 64 << 10
STRETCHES, STRETCH_BYTES = 16, 4 << 10  # sampled between the ends
WHOLE_BYTES = 64 << 20
"""Files that people edit are read whole up to this size, because a single changed letter makes another file."""
THREADS = 16
PIECE = 1 << 20
WARC_DATE = re.compile(rb"^WARC-Date:[ \t]*(\d{4})-(\d\d)-(\d\d)", re.IGNORECASE | re.MULTILINE)
FIRST_YEAR = 1991  # the web's first year: an earlier date comes from a clock that was never set


def digests(
    store: Store, entries: Sequence[Entry], prefix: str = "", whole_bytes: int = 2 * END_BYTES
) -> dict[str, str]:
    """Path -> digest of each of `entries`, all below `prefix`. Files above `whole_bytes` are sampled."""
    if store.is_s3:
        tags = store.etags(prefix)
        return {entry.path: tags.get(entry.path, "") for entry in entries}
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda entry: _digest(store, entry, whole_bytes), entries)
        return {entry.path: digest for entry, digest in zip(entries, found, strict=True)}


def _digest(store: Store, entry: Entry, whole_bytes: int) -> str:
    """32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with store.open_input(entry.path) as file:
        if entry.size <= whole_bytes:
            while piece := file.read(PIECE):
                digest.update(piece)
        else:
            digest.update(file.read(END_BYTES))
            for start in _stretches(entry.size):
                file.seek(start)
                digest.update(file.read(STRETCH_BYTES))
            file.seek(entry.size - END_BYTES)
            digest.update(file.read(END_BYTES))
    return digest.hexdigest()


def _stretches(size: int) -> list[int]:
    """Start offsets of the stretches. Each lies at the centre of one sixteenth of the bytes between a file's ends."""
    middle = size - 2 * END_BYTES
    centres = (END_BYTES + (2 * index + 1) * middle // (2 * STRETCHES) for index in range(STRETCHES))
    return [centre - STRETCH_BYTES // 2 for centre in centres]


def capture_date(store: Store, path: str) -> datetime.date | None:
    """The day of the first `WARC-Date` in the head of a crawl file, plain or gzip; None if it has no valid one."""
    with store.open_input(path) as file:
        head = file.read(END_BYTES)
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(head, END_BYTES)
        except zlib.error:
            return None
    match = WARC_DATE.search(head) if head.startswith(b"WARC/") else None
    if not match or int(match[1]) < FIRST_YEAR:
        return None
    try:
        return datetime.date(*map(int, match.groups()))
    except ValueError:
        return None
