"""URLs taken apart: their hosts in one form, and what stands behind."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.urls.address import split_url
from pipelines.urls.canonical import canonical


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}"]))
def test_every_spelling_of_an_address_is_that_address(number, spelling):
    assert split_url(f"http://{spelling.format(number)}:80/x") == (str(ipaddress.IPv4Address(number)), "/x")


def test_hosts_are_brought_to_one_form():
    assert split_url("HTTP://User@.A.com.:80/b?c#d") == ("a.com", "/b?c")
    assert split_url("http://[2001:DB8:0::1]/") == ("2001:db8::1", "/")
    assert split_url("http://1.2.3.4.5/") == ("1.2.3.4.5", "/")
    assert split_url("http://999/") == ("0.0.3.231", "/")
    assert split_url("http://[x/") == ("", "")


@pytest.mark.parametrize(("length", "host"), [(1000, "a" * 1000), (1024, "a" * 1024), (1025, "")])
def test_a_host_of_more_characters_than_any_has_is_none(length, host):
    assert split_url(f"http://{'a' * length}/path?query") == (host, "/path?query" if host else "")
    assert split_url(f"http://a.test/{'a' * length}") == ("a.test", f"/{'a' * length}")
    assert split_url(f"http://a.test?{'a' * length}") == ("a.test", f"?{'a' * length}")
    for rest in (f"/?next=//{'a' * length}", f"//{'a' * length}", f"/x#//{'a' * length}"):
        assert split_url(f"http://a.test{rest}")[0] == "a.test"
        assert canonical(f"http://a.test{rest}").startswith("https://a.test/")
    assert split_url(f" \x00ht\ttp:/\t/{'é' * length}/")[0].startswith("é") is bool(host)
    assert canonical(f"http://{'a' * length}/b/../") == (f"https://{host}/" if host else f"http://{'a' * length}/b/../")
