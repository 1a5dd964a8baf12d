"""Makes untrusted text safe to show in a terminal, a log or a page.

Titles, URLs and samples come from web pages, and file names from whoever wrote the files. A control character in them
could move a terminal's cursor, fake a log line by ending the current one, or reverse the direction of a line.
"""

import re

HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # C0, delete, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Unicode's bidirectional controls
    r"\u2028\u2029"  # Unicode's line and paragraph separators
    r"\ud800-\udfff]"  # lone surrogates, which no output can encode
)


def printable(text: str) -> str:
    """The text as one line, with every control character escaped, for example as `\\x1b`."""
    return HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """The text with every control character but the ends of its lines escaped; its last line ends, too."""
    return "".join(f"{printable(line)}\n" for line in text.splitlines())
