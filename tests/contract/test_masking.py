"""What people see of a URI holds no secret, wherever it stands, and everything else of it."""

import logging
import pickle
import time

import pytest

from contract import fetch
from contract.errors import InputError, StoreError
from contract.masking import masked, masked_words, secrets_in


@pytest.mark.parametrize(
    ("text", "shown", "secrets"),
    [
        ("http://me:geheim@host:80/x?sig=S3CRET&a=b", "http://***@host:80/x?***", ["geheim", "sig=S3CRET&a=b", "S3CRET", "b"]),
        ("HTTPS://t%40ken@host/x", "HTTPS://***@host/x", ["t%40ken", "t@ken"]),
        ("at https://bob:it's-me@host/x", "at https://***@host/x", ["it's-me"]),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:p/s?s#@w@host/x: is wrong", "http://***@host/x: is wrong"),
        ("http://h/x: ask a@b.test", "http://h/x: ask a@b.test"),
    ],
)
def test_a_password_may_hold_any_sign_in_an_error_about_addresses(text: str, shown: str) -> None:
    assert masked_words(text) == shown


def test_an_address_that_cannot_be_asked_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(InputError, match=r"^http://\*\*\*@host/x: is not an address that can be requested") as error:
        fetch.get("http://me:gehe/im@host/x")
    assert "gehe" not in str(error.value)
    assert "gehe" not in caplog.text


@pytest.mark.parametrize("piece", ["http://", "a", "://", "@", "?", "http://a?", "a+-.", "x@y/"])
def test_masking_is_linear(piece: str) -> None:
    began = time.process_time()
    masked(piece * (400_000 // len(piece)))
    masked_words(piece * (400_000 // len(piece)))
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
