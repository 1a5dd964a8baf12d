"""What people see of a URI holds no secret, wherever it stands, and everything else of it."""

import logging
import pickle
import time

import pytest

from contract import fetch
from contract.errors import StoreError
from contract.masking import masked, secrets_in


@pytest.mark.parametrize(
    ("text", "shown", "secrets"),
    [
        ("http://me:geheim@host:80/x?sig=S3CRET&a=b", "http://***@host:80/x?***", ["geheim", "sig=S3CRET&a=b", "S3CRET", "b"]),
        ("HTTPS://t%40ken@host/x", "HTTPS://***@host/x", []),
        ("http://me:p@ss%2Fword@host/@x", "http://***@host/@x", ["p@ss%2Fword", "p@ss/word"]),
        ("http://h/x?sig=S: the server answers 404; 'http://h/y?t=T'.", "http://h/x?***: the server answers 404; 'http://h/y?***'.", ["sig=S", "S", "t=T", "T"]),
        ("crawl.source=http://h/x?a=1", "crawl.source=http://h/x?***", ["a=1", "1"]),
        ("s3://key:secret@bucket/x", "s3://***@bucket/x", ["secret"]),
        ("is that file:///data/what?/x the one? no", "is that file:///data/what?/x the one? no", []),
        ("https://data.commoncrawl.org: fine? yes, a@b.test", "https://data.commoncrawl.org: fine? yes, a@b.test", []),
    ],
)  # fmt: skip
def test_masked(text: str, shown: str, secrets: list[str]) -> None:
    assert masked(text) == shown
    assert secrets_in(text) == secrets
    assert masked(shown) == shown


@pytest.mark.parametrize("piece", ["http://", "a", "://", "@", "?", "http://a?", "a+-.", "x@y/"])
def test_masking_is_linear(piece: str) -> None:
    began = time.process_time()
    masked(piece * (400_000 // len(piece)))
    assert time.process_time() - began < 2


def test_an_error_shows_no_secret_however_it_travels() -> None:
    error = StoreError("http://me:geheim@host/x?sig=S3CRET: down")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "http://***@host/x?***: down"
    assert "geheim" not in repr(error)


def test_what_is_logged_while_a_source_cannot_be_reached(caplog: pytest.LogCaptureFixture) -> None:
    """On every level and by whichever library: the URL's secrets stay out."""
    caplog.set_level(logging.DEBUG)
    url = "http://me:geheim@127.0.0.1:9/x?sig=S3CRET"
    with pytest.raises(StoreError):
        fetch.get(url, patience_s=1.5)
    assert fetch.size(url, retries=1) == 0
    shown = "warning: http://***@127.0.0.1:9/x?***: [Errno 111] Connection refused; asked again in 1 s"
    told = [(one.levelname, one.getMessage()) for one in caplog.records if "Connection refused" in one.getMessage()]
    assert told == [
        ("WARNING", shown),
        ("WARNING", "warning: 127.0.0.1/x: [Errno 111] Connection refused; retry 1 of 1"),
    ]
    assert "S3CRET" not in caplog.text
    assert "geheim" not in caplog.text
