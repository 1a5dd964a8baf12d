"""Text of strangers as a terminal, a log or a page may show it.

Titles, URLs and samples come from pages, names of files from whoever wrote them. A control character among them would move a terminal's
cursor, end a line so that the rest looks like one of ours, or turn the direction in which a line is read.
"""

import re

HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # C0, delete, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Unicode's bidirectional controls
    r"\u2028\u2029"  # its own ends of lines
    r"\ud800-\udfff]"  # halves of characters, which no output can encode
)


def printable(text: str) -> str:
    """The text as one line, with `\\x1b` and the like for every character that does something instead of being shown."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
