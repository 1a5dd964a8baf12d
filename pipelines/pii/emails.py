"""Find e-mail addresses in running text of any script, including internationalised host names."""

import re
import unicodedata
from collections.abc import Iterator

from pipelines.pii.latin import LATIN

PLACEHOLDER = "email@example.com"
MAX_LOCAL = 64  # RFC 5321: most characters before the @

_WIDE = "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a"  # full-width digits and letters
_LATIN = f"{LATIN}{_WIDE}"
# Letters and marks of other scripts that separate words by spaces, from Greek to Ethiopic.
_SPACED = "".join(
    chr(point)
    for first, last in ((0x370, 0x7FF), (0x900, 0xDFF), (0x10A0, 0x10FF), (0x1200, 0x137F))
    for point in range(first, last + 1)
    if unicodedata.category(chr(point))[0] in "LM"
)
_OTHER = (
    rf"{_SPACED}\u0e01-\u0fbc\u1000-\u109f\u1780-\u17dd\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
    r"\uf900-\ufaff"
)
# The search starts at the @, because that sign is rare. A label has at most 63 characters (RFC 1035), which keeps the
# search linear. In scripts without spaces, only the listed top-level domains are accepted, because the sentence may
# continue right after the address.
HOST = re.compile(
    rf"""[@＠](?:(?:[{_LATIN}](?:[{_LATIN}－-]{{0,61}}[{_LATIN}])?
          | [{_OTHER}](?:[{_OTHER}\d-]{{0,61}}[{_OTHER}\d])?)[.．])+
        (?: (?:[Xx][Nn]--[A-Za-z0-9-]{{2,59}} | [A-Za-z\uff21-\uff3a\uff41-\uff5a]{{2,24}}) (?![{_LATIN}_])
          | [{_SPACED}]{{2,24}}(?![{_SPACED}])
          | 中国|中國|公司|网络|網絡|香港|台湾|台灣|新加坡|한국|ไทย)""",
    re.VERBOSE,
)
# The part before the @: Latin letters, which may directly follow a word of another script, or whole words of a script
# with spaces.
LOCAL = re.compile(rf"[{_LATIN}_.．%+'－-]{{1,{MAX_LOCAL + 1}}}\Z")
LOCAL_SPACED = re.compile(rf"[{_LATIN}{_SPACED}_.．%+'－-]{{1,{MAX_LOCAL + 1}}}\Z")
NO_START = ".．'－-"


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of every address, in order."""
    done = 0
    for host in HOST.finditer(text):
        at = host.start()
        window = text[max(done, at - MAX_LOCAL - 1) : at]
        found = LOCAL.search(window) or LOCAL_SPACED.search(window)
        local = found[0].lstrip(NO_START) if found else ""
        # Skip an address that touches the previous one: after masking, it would read as a part of that one's host.
        parted = not done or text[done : at - len(local)].strip(".．")
        if 0 < len(local) <= MAX_LOCAL and parted:
            done = host.end()
            yield at - len(local), done
