"""Decoding in a child that may be killed: the C code of the decoders reads what strangers wrote.

Common Crawl stores bodies without their encodings, so few pages are sent to the child.
"""

import json
from functools import lru_cache

from contract.guard import Guard, Outcome
from pipelines.warc.httpbody import TooLarge, Undecodable, decode_body, is_plain

SECONDS = 10.0  # of processor time; a gibibyte inflates in four
OWN_MB = (
    192  # for the decoders themselves, beside the body and its decoded forms: Zstandard looks back over up to 128 MiB
)
WHOLE, CUT, TOO_LARGE, UNDECODABLE = b"w", b"c", b"l", b"u"  # the first byte of an answer


def decode_confined(body: bytes, transfer: str, content: str, limit: int) -> tuple[bytes, bool]:
    """`httpbody.decode_body`. Raises Undecodable also where that takes too much time or memory, or crashes."""
    if is_plain(body, transfer, content):
        return body, False
    reply = guard_for(limit).call(body, json.dumps([transfer, content, limit]))
    if reply.outcome is not Outcome.DONE:
        raise Undecodable(f"its decoder ended: {reply.outcome}, {reply.text}")
    mark, data = reply.data[:1], reply.data[1:]
    if mark == TOO_LARGE:
        raise TooLarge
    if mark == UNDECODABLE:
        raise Undecodable(data.decode("utf-8", "replace"))
    if mark not in (WHOLE, CUT):
        raise Undecodable("its decoder gave no answer of ours")
    return data, mark == CUT


@lru_cache(maxsize=1)
def guard_for(limit: int) -> Guard:
    """This worker's child, kept from task to task."""
    return Guard(_decode, SECONDS, OWN_MB + (6 * limit >> 20))


def _decode(body: bytes, note: str) -> bytes:
    transfer, content, limit = json.loads(note)
    try:
        data, cut = decode_body(body, transfer, content, limit)
    except TooLarge:
        return TOO_LARGE
    except Undecodable as error:
        return UNDECODABLE + str(error).encode("utf-8", "replace")
    return (CUT if cut else WHOLE) + data
