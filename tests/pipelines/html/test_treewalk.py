"""Walks against the XPath expressions that they stand for, on trees made to tell them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree, html

from pipelines.html import treewalk
from pipelines.html.treewalk import Untranslated, Walk

NAMES = {"namespaces": {"re": "http://exslt.org/regular-expressions"}}
PAGE = (
    "<div id=x class=box><p id=x>1<p class=ABc id=q>2<div id=q class=nav><h1>t</h1><p id=ABx role=Navigation>3</p></div><aside>4</aside>"
    "<b class=x id='ab nav'>5</b><section class='' id=footer>6</section><!-- div --><div class=footer id=x>7<aside id=a>8</aside></div>"
    "<span id=ab class=cookie>9</span><span class=cookie id=ab>10</span><p aria-hidden=true style='a display:none'>11</p></div>"
)
PATHS = [
    ".//aside",
    ".//*[self::p or self::div]",
    ".//*[self::p]",
    ".//*[self::p][@id='x']",
    ".//*[@id]",
    ".//*[@id='x' or @class='box']",
    ".//*[re:test(@class, 'av')]",
    ".//*[re:test(@class, 'ab', 'i')]",
    ".//*[self::b or self::span][re:test(@id|@class, '^ab|cookie$') or @aria-hidden='true']",
    ".//*[self::span][re:test(@id|@class, 'cookie')]",
    ".//*[self::span][starts-with(@class|@id, 'ab')]",
    ".//*[contains(translate(@role, 'N', 'n'), 'nav') or contains(@style, 'display:none')]",
    ".//*[self::div or self::p][@id][not(.//h1) or re:test(@class, 'nope')]",
    ".//*[self::div or self::p][@id][not(self::p) or @class='ABc']",
    "(.//*[self::p or self::b][@id])[1]",
    "(.//article)[1]",
    ".//aside|.//div[contains(@class|@id, 'footer')]|.//*[re:test(@class, 'COOKIE', 'i') or re:test(@id, 'q')]",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_walk_finds_what_the_expression_finds(path):
    tree = html.fromstring(PAGE)
    expected = etree.XPath(path, **NAMES)(tree)
    walk = Walk(path)
    assert walk(tree) == expected
    assert walk(tree) == expected  # from its memory
    for below in tree:
        if isinstance(below.tag, str):
            assert walk(below) == etree.XPath(path, **NAMES)(below)


def test_the_paths_above_find_something():
    tree = html.fromstring(PAGE)
    assert [path for path in PATHS if not Walk(path)(tree)] == ["(.//article)[1]"]


@pytest.mark.parametrize(
    "path",
    [
        ".//*[self::p][1]",
        ".//p[position() > 2]",
        "//p",
        ".//*[re:test(@id, 'a*')]",
        ".//*[not(@id)]",
        ".//a/b",
        ".//p[text()='x']",
        "",
        ".//*[@a|@b='x']",
        "(.//p)[2]",
    ],
)
def test_another_expression_is_refused(path):
    with pytest.raises(Untranslated):
        Walk(path)


TAGS, VALUES = ("div", "p", "span", "aside", "h1"), ("", "nav", "ab", "x-footer", "Cookie ab")
TREES = st.recursive(
    st.tuples(st.sampled_from(TAGS), st.lists(st.tuples(st.sampled_from(("id", "class", "role")), st.sampled_from(VALUES)), max_size=3, unique_by=lambda one: one[0]), st.just(())),
    lambda inner: st.tuples(st.sampled_from(TAGS), st.lists(st.tuples(st.sampled_from(("id", "class")), st.sampled_from(VALUES)), max_size=2, unique_by=lambda one: one[0]), st.lists(inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


def grown(shape):
    tag, attributes, children = shape
    element = etree.Element(tag)
    for name, value in attributes:
        element.set(name, value)
    element.extend(map(grown, children))
    return element


@given(st.lists(TREES, min_size=1, max_size=5), st.sampled_from(PATHS))
def test_on_any_tree(shapes, path):
    tree = etree.Element("body")
    tree.extend(map(grown, shapes))
    assert Walk(path)(tree) == etree.XPath(path, **NAMES)(tree)


@pytest.mark.parametrize("memory", [1, 2])
def test_a_small_memory_forgets_and_answers_the_same(monkeypatch, memory):
    monkeypatch.setattr(treewalk, "MEMORY", memory)
    tree = html.fromstring(PAGE)
    for path in PATHS:
        walk = Walk(path)
        assert walk(tree) == walk(tree) == etree.XPath(path, **NAMES)(tree)
        assert all(len(answers) <= memory for tests in walk._tests.values() for _, answers in tests.answers)


def test_answers_are_remembered():
    walk = Walk(".//*[re:test(@id, 'q')]")
    tree = html.fromstring(PAGE)
    walk(tree)
    [(name, answers)] = walk._tests["*"].answers
    assert name == "id"
    assert answers == {value: int("q" in value) for value in tree.xpath(".//@id")}
