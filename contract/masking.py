"""Masks the secrets of URIs: the name and password before the host, and the query, which may hold a signature.

Every GristmillError masks its message. Code that shows a source's URI in any other way must mask it, too.
"""

import re
from urllib.parse import parse_qsl, unquote

# Everything that follows a scheme matches, secret or not, so that the search is linear in the text. A quotation mark or
# a bracket ends a URI within a sentence. An apostrophe does not end the user part, because a password may hold one.
_URI = re.compile(
    r"""(?P<scheme>[A-Za-z0-9+.-]{0,20}://)(?P<user>[^\s/?#"<>]*@)?(?P<place>[^\s?"'<>]*)(?P<query>\?[^\s"'<>]*)?"""
)
_HTTP = ("http://", "https://")  # in other schemes a question mark is part of the file's name
_SENTENCE = ":;,.)"  # at a URI's end, these belong to the sentence around it


def masked(text: str) -> str:
    """The text with `***` for the secrets of every URI in it."""
    return _URI.sub(_mask, text)


def masked_words(text: str) -> str:
    """The text with `***` for everything between `://` and the last `@` of a word.

    For addresses that are wrong: a password in them may hold a `/` or `#`, at which `masked` would stop.
    """
    return re.sub(r"\S+", _mask_word, text)


def _mask_word(found: re.Match[str]) -> str:
    scheme, separator, rest = found[0].partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}{separator}***@{place}" if separator and at else found[0]


def _mask(found: re.Match[str]) -> str:
    user = "***@" if found["user"] else ""
    query = found["query"] or ""
    if query.rstrip(_SENTENCE) not in ("", "?") and found["scheme"].lower().endswith(_HTTP):
        query = "?***" + query[len(query.rstrip(_SENTENCE)) :]
    return f"{found['scheme']}{user}{found['place']}{query}"


def secrets_in(text: str) -> list[str]:
    """The secrets that `masked` hides, without duplicates.

    They are each password, or the name if it has none, as written and decoded, and each query and its values.
    """
    found: list[str] = []
    for one in _URI.finditer(text):
        name, colon, word = (one["user"] or "").removesuffix("@").partition(":")
        password = word if colon else name  # a token is given as a name without password
        found += [password, unquote(password)]
        if one["scheme"].lower().endswith(_HTTP):
            query = (one["query"] or "").lstrip("?").rstrip(_SENTENCE)
            found += [query, *(value for _, value in parse_qsl(query))]
    return list(dict.fromkeys(filter(None, found)))
