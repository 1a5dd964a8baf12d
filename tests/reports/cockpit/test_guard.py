"""What may write: a page of this origin, by POST, with a form of limited size."""

import pytest
from fastapi import WebSocketDisconnect

from reports.cockpit.guard import HEADERS, MAX_BODY, same_origin


@pytest.mark.parametrize(
    ("sent", "same"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, True),  # a browser alone sets the first
        ({"sec-fetch-site": "same-site", "origin": "http://air.example"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://air.example"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://air.example"}, True),
        ({"origin": "http://air.example:81"}, False),
        ({"origin": "http://air.example.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({}, False),
    ],
)
def test_a_write_comes_from_a_page_of_this_origin(sent, same):
    assert same_origin({"host": "air.example", **sent}) is same


def test_without_a_host_nothing_is_the_same_origin():
    assert not same_origin({"origin": "null"})


def test_only_get_and_post_are_answered(visit):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert visit.client.request(method, "/run", headers=visit.same_origin).status_code == 405
    assert visit.client.head("/static/style.css").status_code == 200


def test_a_form_has_a_size(visit):
    sent = visit.client.post("/run", content=b"x" * (MAX_BODY + 1), headers=visit.same_origin)
    assert sent.status_code == 413
    chunks = visit.client.post("/run", content=iter([b"x"]), headers=visit.same_origin)
    assert chunks.status_code == 413, "a form without a length may be of any size"
    both = {**visit.same_origin, "content-length": "1", "transfer-encoding": "chunked"}
    assert visit.client.post("/run", content=b"x", headers=both).status_code == 413


def test_no_inline_script_and_nothing_from_elsewhere():
    policy = dict(part.split(" ", 1) for part in HEADERS["content-security-policy"].split("; "))
    assert HEADERS["referrer-policy"] == "same-origin", "without a referrer a form says Origin: null"
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["frame-ancestors"] == "'self'"
    assert not any("http" in text or "*" in text for text in policy.values())


def test_a_websocket_is_closed(visit):
    with pytest.raises(WebSocketDisconnect), visit.client.websocket_connect("/run"):
        raise AssertionError("it was accepted")
