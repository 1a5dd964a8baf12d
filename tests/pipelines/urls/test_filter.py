"""The URL filter: block lists, word scores, curated hosts."""

import hashlib
import os
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.schema import Drop
from contract.settings.corpus import Crawl
from pipelines.urls import filter as url_module
from pipelines.urls import listfile
from pipelines.urls.blocklist import Blocklists
from pipelines.urls.filter import CURATED_HOSTS, _parents, _prefixes, compile_lists, load_url_filter, shipped
from pipelines.urls.listfile import list_hashes


@pytest.fixture
def lists(tmp_path):
    """Two folders of categories in the UT1 format."""
    for path, lines in {
        "adult/domains": [
            "le.com",
            "Bad.Example",
            "xn--mller-kva.de",
            "10.0.0.1",
            "[2001:db8::1]",
            "straße.example",
            "underscore_host.test",
            ".dotted.test",
            "# no.entry",
            "1.2.3",
        ],
        "adult/urls": ["www.shared.org/~bad/", "shared.org/page?id=1", "http://www.root.org/", "/"],
        "ads/domains": ["tracker.net", ""],
        "ads/usage": ["black"],
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("\n".join(lines) + "\n")
    return str(tmp_path / "adult"), str(tmp_path / "ads")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://le.com/", (Drop.URL_BLOCKED_DOMAIN, "adult: le.com")),
        ("https://a.b.LE.com./x", (Drop.URL_BLOCKED_DOMAIN, "adult: le.com")),
        ("https://google.com/", None),
        ("https://le.com.example.org/", None),
        ("http://bad.example:8080/", (Drop.URL_BLOCKED_DOMAIN, "adult: bad.example")),
        ("http://www.müller.de/", (Drop.URL_BLOCKED_DOMAIN, "adult: xn--mller-kva.de")),
        ("http://10.0.0.1/x", (Drop.URL_BLOCKED_DOMAIN, "adult: 10.0.0.1")),
        ("http://10.1:8080/x", (Drop.URL_BLOCKED_DOMAIN, "adult: 10.0.0.1")),
        ("http://0xa000001/", (Drop.URL_BLOCKED_DOMAIN, "adult: 10.0.0.1")),
        ("http://5.10.0.0.1/", (Drop.URL_BLOCKED_DOMAIN, "adult: 10.0.0.1")),
        ("http://110.0.0.1/", None),
        ("http://[2001:db8:0:0::1]/", (Drop.URL_BLOCKED_DOMAIN, "adult: 2001:db8::1")),
        ("http://www.xn--MLLER-kva.de../", (Drop.URL_BLOCKED_DOMAIN, "adult: xn--mller-kva.de")),
        ("http://straße.example/", (Drop.URL_BLOCKED_DOMAIN, "adult: strasse.example")),
        ("http://user:pw@le.com/", (Drop.URL_BLOCKED_DOMAIN, "adult: le.com")),
        ("http://underscore_host.test/", (Drop.URL_BLOCKED_DOMAIN, "adult: underscore_host.test")),
        ("http://dotted.test/", (Drop.URL_BLOCKED_DOMAIN, "adult: dotted.test")),
        ("http://ads.tracker.net/x", (Drop.URL_BLOCKED_DOMAIN, "ads: tracker.net")),
        ("http://shared.org/~bad/picture", (Drop.URL_BLOCKED, "adult: shared.org/~bad")),
        ("http://www2.shared.org/~bad", (Drop.URL_BLOCKED, "adult: shared.org/~bad")),
        ("http://shared.org/~badger", None),
        ("http://shared.org/page?id=1", (Drop.URL_BLOCKED, "adult: shared.org/page?id=1")),
        ("http://shared.org/page?id=2", None),
        ("http://shared.org/", None),
        ("http://root.org", (Drop.URL_BLOCKED, "adult: root.org")),
        ("http://www.root.org/any/page?x=1", (Drop.URL_BLOCKED, "adult: root.org")),
        ("http://root.org.example/", None),
        ("http://[broken", None),
        ("hard::no-url", None),
    ],
)
def test_block_lists(lists, url, found):
    assert load_url_filter(Crawl(blocklists=lists)).judge(url) == found


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://a.org/x-Por.n-y", (Drop.URL_STRICT_WORD, "porn")),
        ("http://a.org/Casino/x", (Drop.URL_HARD_WORD, "casino")),
        ("http://a.org/casinos", None),
        ("http://a.org/%63asino", (Drop.URL_HARD_WORD, "casino")),
        ("http://a.org/free_BONUS/2024", (Drop.URL_SOFT_WORDS, "bonus free")),
        ("http://a.org/free-free/free", None),
        ("http://a.org/freebonus", None),
    ],
)
def test_words_whatever_their_case(url, found):
    settings = Crawl(strict_words=("Porn",), hard_words=("CASINO",), soft_words=("Free", "bonus", "win"))
    assert load_url_filter(settings).judge(url) == found


def test_the_lists_are_asked_before_curated_hosts_and_those_before_words(tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "domains").write_text("a.org\nen.wikipedia.org\n")
    judge = load_url_filter(
        Crawl(blocklists=(str(tmp_path),), hard_words=("casino",), soft_words=("free", "win"))
    ).judge
    assert judge("http://en.wikipedia.org/casino") == (Drop.URL_BLOCKED_DOMAIN, "adult: en.wikipedia.org")
    assert judge("http://de.wikipedia.org/casino") == (Drop.URL_CURATED_HOST, "wikipedia.org")
    assert judge("http://b.org/casino/free/win") == (Drop.URL_HARD_WORD, "casino")
    assert judge("http://b.org/free/win") == (Drop.URL_SOFT_WORDS, "free win")
    assert judge("http://b.org/free") is None


def test_strict_words_are_found_within_others_whatever_signs_part_them():
    judge = load_url_filter(Crawl(strict_words=("Po-r.n", "xx"))).judge
    assert judge("http://a.org/sup.er-porno") == (Drop.URL_STRICT_WORD, "porn")
    assert judge("http://a.org/x-x") == (Drop.URL_STRICT_WORD, "xx")
    assert judge("http://a.org/po_rn") is None


def test_curated_hosts():
    keeper, skipper = load_url_filter(Crawl(skip_curated_hosts=False)), load_url_filter(Crawl())
    assert skipper.judge("https://en.wikipedia.org/wiki/X") == (Drop.URL_CURATED_HOST, "wikipedia.org")
    assert skipper.judge("https://notwikipedia.org/") is None
    assert keeper.judge("https://en.wikipedia.org/wiki/X") is None
    assert len(CURATED_HOSTS) == 16


@pytest.mark.parametrize("folder", ["", "empty"])
def test_a_missing_or_empty_list_is_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    place = str(tmp_path / (folder or "nowhere"))
    with pytest.raises(InputError, match="is missing or holds no list"):
        load_url_filter(Crawl(blocklists=(place,)))


def test_several_categories_in_one_folder_are_refused(lists, tmp_path):
    with pytest.raises(
        InputError, match=r"holds 2 categories.*: name the folder of each.*/adult; there are ads, adult$"
    ):
        load_url_filter(Crawl(blocklists=(str(tmp_path),)))


HOSTS = """\ufeff# a title
127.0.0.1 localhost
127.0.0.1  localhost.localdomain local
255.255.255.255\tbroadcasthost
::1 ip6-localhost ip6-loopback
fe80::1%lo0 localhost
0.0.0.0 0.0.0.0

0.0.0.0 plain.test
127.0.0.1\ttabbed.test
  0.0.0.0   Indented.Test   # why
0.0.0.0 first.test second.test
:: six.test
::1 seven.test
0.0.0.0 remarked.test#why not.this
0.0.0.0 *.odd.test
||filter.test^
! a remark of another kind
named.test # a remark
"""


def blocked(folder, name, lines):
    """Which hosts a list of this name blocks."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(lines)
    judge = load_url_filter(Crawl(blocklists=(str(folder),), skip_curated_hosts=False)).judge
    return lambda *hosts: [host for host in hosts if judge(f"http://{host}/")]


@pytest.mark.parametrize("name", ["hosts", "domains"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_a_list_in_the_form_of_a_hosts_file(tmp_path, capsys, name, line):
    listed = [
        f"{one}.test"
        for one in ("plain", "tabbed", "indented", "first", "second", "six", "seven", "remarked", "filter", "named")
    ]
    asked = blocked(tmp_path / "ads", name, HOSTS.replace("\n", line))
    assert asked(*listed, "sub.plain.test") == [*listed, "sub.plain.test"]
    assert asked("localhost", "a.localhost", "0.0.0.0", "127.0.0.1", "test", "odd.test", "not.this", "remark") == []
    said = capsys.readouterr().out
    assert said == (
        f"crawl.blocklists: file://{tmp_path}/ads/{name}: 1 lines name nothing and are skipped "
        "(line 16: '0.0.0.0 *.odd.test')\n"
    )


@pytest.mark.parametrize(
    "line",
    ["*.a.test", "address=/a.test/0.0.0.0", "@@||a.test^", "||a.test^$popup", "a.test##.banner", "a.test/path", "a.test b.test", "10.0.0.0/8", "a\0.\0"],
)  # fmt: skip
def test_a_list_of_which_no_line_names_anything_is_refused(tmp_path, line):
    with pytest.raises(
        InputError, match=r"^crawl\.blocklists: .*/ads/domains: none of its 4 lines names a domain \(line 2: '.*line 4"
    ):
        blocked(tmp_path / "ads", "domains", f"# title\n{line}\n{line}\n{line}\n{line}\n")
    assert blocked(tmp_path / "ads", "domains", f"{line}\nc.test\n")("a.test", "b.test", "c.test") == ["c.test"]


def test_a_hosts_file_under_the_name_of_a_list_of_urls_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"/urls: none of its 1 lines names a URL \(line 1: '0.0.0.0 a.test'\)"):
        blocked(tmp_path / "ads", "urls", "0.0.0.0 a.test\n")


def test_lists_that_are_all_empty_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"crawl\.blocklists: .*/ads: its lists are empty"):
        blocked(tmp_path / "ads", "domains", "# nothing\n\n")
    (tmp_path / "ads" / "urls").write_text("a.test/x")
    assert blocked(tmp_path / "ads", "domains", "")("a.test") == []


@given(st.sets(st.from_regex(r"[a-z]{1,6}\.(com|org)", fullmatch=True), min_size=1, max_size=40), st.data())
def test_a_domain_is_blocked_when_it_or_a_parent_is_listed(tmp_path_factory, domains, data):
    folder = tmp_path_factory.mktemp("lists")
    (folder / "category").mkdir()
    (folder / "category" / "domains").write_text("\n".join(domains))
    judge = load_url_filter(Crawl(blocklists=(str(folder),), skip_curated_hosts=False)).judge
    asked = data.draw(
        st.from_regex(r"([a-z]{1,3}\.)?[a-z]{1,6}\.(com|org)", fullmatch=True) | st.sampled_from(sorted(domains))
    )
    listed = any(asked == domain or asked.endswith("." + domain) for domain in domains)
    assert (judge(f"http://{asked}/") is not None) is listed


def test_ut1_at_its_real_size(data_dir, tmp_path):
    with tarfile.open(data_dir / "urlfilter" / "ut1_blacklists_2026-08-17_without_adult_domains.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folders = {str(file.parent) for file in (tmp_path / "blacklists").glob("*/domains")}
    built = load_url_filter(Crawl(blocklists=tuple(sorted(folders))))
    assert len(built.lists.domains) == pytest.approx(368_905, rel=0.01)
    bank = (tmp_path / "blacklists" / "bank" / "domains").read_text().split()
    assert all(built.judge(f"https://www.{domain}/login") is not None for domain in bank[::500])
    assert built.judge("https://docs.python.org/3/") is None


@given(st.text(max_size=60) | st.text(max_size=40).map("http://{}".format))
def test_whatever_stands_for_a_url_is_judged(lists_of_one, url):
    assert lists_of_one.judge(url) is None or "le.com" in url.lower() or not url.isascii()


@pytest.fixture(scope="module")
def lists_of_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    (folder / "adult").mkdir()
    (folder / "adult" / "domains").write_text("le.com\n")
    return load_url_filter(Crawl(blocklists=(str(folder),), skip_curated_hosts=False))


@given(st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{1,5}){1,4}", fullmatch=True))
def test_parents_are_all_suffixes_at_a_dot_and_nothing_else(host):
    labels = host.split(".")
    assert list(_parents(host)) == [".".join(labels[n:]) for n in range(len(labels))]


@given(st.lists(st.sampled_from(["a.com", "Bé.de", "", "# x", "b_c.net", "10.1"]), max_size=12), st.integers(0, 20))
def test_a_list_taken_apart_in_pieces_gives_the_same(lines, size):
    data = "\n".join(lines).encode()
    whole, _ = list_hashes(data, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listfile, "PIECE_BYTES", size)
        assert sorted(list_hashes(data, False)[0]) == sorted(whole)
    assert len(whole) == sum(line not in ("", "# x") for line in lines)


@pytest.mark.parametrize("size", [0, 5, 1 << 20])
def test_odd_lines_keep_their_numbers_in_pieces(monkeypatch, size):
    monkeypatch.setattr(listfile, "PIECE_BYTES", size)
    lines = ["a.com", "*.odd", "# x", "", "b.com/x", "c.com", *(f"{n} d" for n in range(9))]
    hashes, odd = list_hashes("\n".join(lines).encode(), False)
    assert (len(hashes), odd.count) == (2, 11)
    assert odd.first == [(2, "*.odd"), (5, "b.com/x"), (7, "0 d")]


def test_a_line_of_a_hosts_file_keeps_its_good_names(tmp_path, capsys):
    asked = blocked(tmp_path / "ads", "hosts", "0.0.0.0 good.test bad*.test fine.test\n")
    assert asked("good.test", "bad.test", "fine.test") == ["good.test", "fine.test"]
    assert "1 lines name nothing and are skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"a" * 100_000 + b"_*", 0),
        (b"1" * 100_000 + b"*", 0),
        (b"a." * 50_000 + b"*", 0),
        (b"0.0.0.0 " + b"a" * 100_000 + b"*", 0),
        (b"0.0.0.0 " + b"a-." * 33_000 + b"*", 0),
        (b"0.0.0.0" + b" " * 100_000 + b"a.test", 1),
        (b"0.0.0.0 a.test" + b" \t" * 50_000 + b"b.test", 2),
        (b"a" * 100_000, 1),
    ],
)
def test_a_long_line_is_read_in_linear_time(line, named):
    began = time.process_time()
    assert len(list_hashes(line, False)[0]) == named
    assert time.process_time() - began < 0.5, "a quadratic pattern takes minutes"


def test_a_long_odd_line_is_shown_in_part(tmp_path, capsys):
    blocked(tmp_path / "ads", "domains", f"a.com\n*{'x' * 200}\n")
    assert f"(line 2: '*{'x' * 79}')" in capsys.readouterr().out


def test_addresses_and_what_is_below_them():
    assert list(_parents("10.0.0.1")) == ["10.0.0.1"]
    assert list(_parents("a1.b2")) == ["a1.b2", "b2"]
    assert list(_parents("")) == []
    assert list(_prefixes("a.com/b//c?d=/e")) == [
        "a.com",
        "a.com/b",
        "a.com/b",
        "a.com/b//c",
        "a.com/b//c?d=",
        "a.com/b//c?d=/e",
    ]


def test_a_list_of_urls_and_one_of_domains_of_the_same_category(tmp_path):
    (tmp_path / "ads").mkdir()
    (tmp_path / "ads" / "domains").write_text("a.com\n")
    (tmp_path / "ads" / "urls").write_text("www12.b.com/x/\nhttps://c.com/y?z\n")
    judge = load_url_filter(Crawl(blocklists=(f"{tmp_path}/ads/",))).judge
    assert judge("http://a.com/") == (Drop.URL_BLOCKED_DOMAIN, "ads: a.com")
    assert judge("http://www1234.b.com/x") is None  # more digits are another host
    assert judge("http://www123.b.com/x/y") == (Drop.URL_BLOCKED, "ads: b.com/x")
    assert judge("http://c.com/y?z") == (Drop.URL_BLOCKED, "ads: c.com/y?z")
    assert judge("http://c.com/y") is None


def test_the_compiled_file_is_named_by_its_content(tmp_path):
    (tmp_path / "ads").mkdir()
    (tmp_path / "ads" / "domains").write_text("a.com\n")
    made = compile_lists([str(tmp_path / "ads")], tmp_path)
    assert made.name == f"blocklists-{hashlib.sha256(made.read_bytes()).hexdigest()[:16]}"
    assert compile_lists([], tmp_path) is None


class Context:
    """Spark's file distribution on a cluster: a name comes from one path only, and files are fetched at any time."""

    def __init__(self):
        self.files = {}

    def addFile(self, path):
        assert self.files.setdefault(Path(path).name, path) == path, "already registered with a different path"


def test_the_segments_of_one_process_ship_the_same_file(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    listed = tmp_path / "a" / "domains"
    listed.write_text("example.com\n")
    context, settings, compiled = Context(), Crawl(blocklists=(str(tmp_path),)), []
    monkeypatch.setattr(url_module, "compile_lists", lambda *given: compiled.append(1) or compile_lists(*given))
    names = [shipped(settings, context).file for _ in range(3)]
    os.utime(listed, (1, 1))
    names.append(shipped(settings, context).file)
    assert len(set(names)) == 1
    assert len(compiled) == 2, "once, and once more for the changed file"
    assert Blocklists(Path(context.files[names[0]])).domains.find("example.com") == 0
    listed.write_text("example.com\nexample.org\n")
    assert shipped(settings, context).file != names[0]
    assert len(context.files) == 2
    assert shipped(Crawl(), context).file is None
