"""The patched trafilatura against the library as it comes: the same texts, and no part that changed unnoticed."""

import ast
import hashlib
import importlib.util
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from lxml import etree, html

from pipelines.html.maintext import XPATH_LISTS, main_text, walked

PLAIN = """
import json, sys, logging, trafilatura
logging.disable(logging.CRITICAL)
for line in sys.stdin:
    page, fast = json.loads(line)
    found = trafilatura.bare_extraction(page, fast=fast, include_comments=False)
    print(json.dumps(found.text if found else None))
"""

READ = {
    "trafilatura.core": ("_prepare_tree", "_extract_and_compare", "_recall_retry", "trafilatura_sequence"),
    "trafilatura.main_extractor": ("_extract", "prune_unwanted_sections"),
    "trafilatura.htmlprocessing": ("prune_unwanted_nodes",),
    "trafilatura.baseline": ("basic_cleaning",),
    "trafilatura.utils": ("INVALID_XML_CHARS", "HTML_PARSER", "repair_faulty_html", "fromstring_bytes", "load_html"),
    "trafilatura.external": ("JT_STOPLIST", "jt_stoplist_init", "try_justext"),
    "justext.utils": ("MULTIPLE_WHITESPACE_PATTERN", "normalize_whitespace", "_replace_whitespace"),
    "justext.core": ("classify_paragraphs",),
    "justext.paragraph": ("Paragraph",),
}
"""Module -> what `maintext.quicken` replaces in it, and what reads the replaced."""

KNOWN = {
    "trafilatura": "2.3.1",
    "RAW_TREE_PRUNE_XPATH": "0a775839824a",
    "REMOVE_COMMENTS_XPATH": "5d97216ca15d",
    "REMOVE_COMMENTS_AND_LISTS_XPATH": "9cc18d34e6e2",
    "OVERALL_DISCARD_XPATH": "90fe7cbe71fb",
    "TEASER_DISCARD_XPATH": "ebb02f066626",
    "DISCARD_IMAGE_ELEMENTS": "cb1ab981e449",
    "BODY_XPATH": "049ab58f8ca0",
    "BASIC_CLEAN_XPATH": "db6c25acd08a",
    "trafilatura.core._prepare_tree": "e60cfeaeac9c",
    "trafilatura.core._extract_and_compare": "d1f304955bb9",
    "trafilatura.core._recall_retry": "fb4b84912f25",
    "trafilatura.core.trafilatura_sequence": "eee729b1f2cd",
    "trafilatura.main_extractor._extract": "1ad3736972fb",
    "trafilatura.main_extractor.prune_unwanted_sections": "cd6712b49a65",
    "trafilatura.htmlprocessing.prune_unwanted_nodes": "d9c3bf6e9e04",
    "trafilatura.baseline.basic_cleaning": "afd6f5c39d29",
    "trafilatura.utils.INVALID_XML_CHARS": "3f30cf710819",
    "trafilatura.utils.HTML_PARSER": "ae66213ed044",
    "trafilatura.utils.repair_faulty_html": "b5a64e01013e",
    "trafilatura.utils.fromstring_bytes": "a3cf88ca23a6",
    "trafilatura.utils.load_html": "533257f72bfa",
    "trafilatura.external.JT_STOPLIST": "c2a95802a0f4",
    "trafilatura.external.jt_stoplist_init": "709dd1ef003f",
    "trafilatura.external.try_justext": "f93e39f88b51",
    "justext.utils.MULTIPLE_WHITESPACE_PATTERN": "ecf046499bbc",
    "justext.utils.normalize_whitespace": "b0ee534ad5f4",
    "justext.utils._replace_whitespace": "6d0c9e12f45c",
    "justext.core.classify_paragraphs": "c1a303762294",
    "justext.paragraph.Paragraph": "e79a31520444",
}
"""The version, and a digest of each part, that `quicken` was written for."""

TEXTS = (
    "The river bends twice before it meets the old mill, and nobody has ground corn there for many years.",
    "In spring the water rises over the lower meadow; the path is then closed, and a sign says so.",
    "Der Fluss macht zwei Bogen, bevor er die alte Mühle erreicht, und niemand hat dort seit Jahren Korn gemahlen.",
    "Au printemps, l'eau monte jusqu'au pré du bas, et le chemin est alors fermé pendant plusieurs semaines.",
    "Two\t tabs \t and   spaces,\r\na line,\u00a0a hard space\u2003and a wide one.",
    "A\x0b few\x1f characters\ufffe that\uffff XML forbids, and one outside of the plane: \U0001f600.",
    "Read more",
    "&lt;b&gt; &amp; &nbsp; &copy; 2 < 3",
    "",
)
TAGS = ("div", "section", "article", "main", "aside", "p", "span", "ul", "li", "table", "form", "blockquote", "h2", "figure", "footer", "header", "nav", "pre")  # fmt: skip


def untouched(name: str) -> ModuleType:
    """A second copy of a module that imports nothing of its package, as the library has it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library_paths() -> dict[str, list[str]]:
    """The expressions that are replaced, by the name of their list."""
    found = {name: [one.path for one in getattr(untouched("trafilatura.xpaths"), name)] for name in XPATH_LISTS}
    return found | {"BASIC_CLEAN_XPATH": [untouched("trafilatura.settings").BASIC_CLEAN_XPATH.path]}


def library_digests() -> dict[str, str]:
    """A digest of each part of the library that was read. Comments and white space make no difference."""
    parts = {name: "\n".join(paths) for name, paths in library_paths().items()}
    for module, names in READ.items():
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        nodes = dict(named(ast.parse(Path(spec.origin).read_text())))
        parts |= {f"{module}.{name}": ast.unparse(nodes[name]) if name in nodes else "" for name in names}
    digests = {name: hashlib.sha256(part.encode()).hexdigest()[:12] if part else "gone" for name, part in parts.items()}
    return {"trafilatura": version("trafilatura")} | digests


def named(module: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name, node


def library_texts(asked: Sequence[tuple[str, bool]]) -> list[str | None]:
    """The texts of pairs of page and `fast`, by the library as it comes, in two other processes."""

    def run(part: Sequence[tuple[str, bool]]) -> list[str | None]:
        given = "\n".join(json.dumps(one) for one in part)
        plain = subprocess.run(
            [sys.executable, "-c", PLAIN], input=given, stdout=subprocess.PIPE, text=True, check=True
        )
        return [json.loads(line) for line in plain.stdout.splitlines()]

    half = len(asked) // 2
    with ThreadPoolExecutor(2) as pool:
        return [text for part in pool.map(run, (asked[:half], asked[half:])) for text in part]


def differing(asked: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Those of the pairs for which the patched library finds another text."""
    expected = library_texts(asked)
    assert sum(bool(text) for text in expected) > 0.7 * len(asked)
    return [one for one, text in zip(asked, expected, strict=True) if main_text(*one) != text]


def vocabulary() -> tuple[list[str], list[str]]:
    """(names of attributes, words in their values) of all that the library's expressions ask for."""
    whole = "\n".join(path for paths in library_paths().values() for path in paths)
    literals = [one or other for one, other in re.findall(r"'([^']*)'|\"([^\"]*)\"", whole)]
    words = {word for literal in literals for word in re.split(r"[^\w-]+", literal) if word}
    return sorted({*re.findall(r"@([\w-]+)", whole)}), sorted(words)


def grow(chance: random.Random, depth: int, names: list[str], words: list[str]) -> str:
    """An element with attributes and text that the library's expressions ask for, and with children."""
    tag = chance.choice(TAGS)
    kinds = chance.sample(names, chance.choice((0, 1, 1, 2)))
    values = [chance.choice((" ", "-", "_")).join(chance.sample(words, chance.choice((1, 1, 2)))) for _ in kinds]
    attributes = "".join(f' {name}="{value}"' for name, value in zip(kinds, values, strict=True))
    children = [grow(chance, depth - 1, names, words) for _ in range(chance.randint(0, 4))] if depth else []
    extra = chance.choice(("", "", "", "<!-- a note -->", "<br>", "<img src=a.png alt=picture>", "<input name=q><select><option>1</select>", "<?note?>"))  # fmt: skip
    return f"<{tag}{attributes}>{chance.choice(TEXTS)}{extra}{''.join(children)}<p>{chance.choice(TEXTS)}</p></{tag}>"


def pages(count: int) -> list[str]:
    """The same pages every time."""
    chance, (names, words) = random.Random(1), vocabulary()
    return [
        "<!DOCTYPE html><html><head><title>A mill</title></head><body>"
        + "".join(grow(chance, 3, names, words) for _ in range(chance.randint(1, 6)))
        + "</body></html>"
        for _ in range(count)
    ]


def test_texts_equal_the_librarys_on_pages_full_of_what_it_looks_for() -> None:
    assert differing([(page, fast) for page in pages(100) for fast in (True, False)]) == []


def test_walks_find_what_the_librarys_expressions_find() -> None:
    trees = [html.fromstring(page) for page in pages(100)]
    for name, paths in library_paths().items():
        found = 0
        for path in paths:
            expression = etree.XPath(path, namespaces={"re": "http://exslt.org/regular-expressions"})
            only_first = name == "BODY_XPATH"
            walk = walked(expression, only_first)
            for tree in trees:
                expected = expression(tree)[: 1 if only_first else None]
                assert walk(tree)[: 1 if only_first else None] == expected, path
                found += len(expected)
        assert found, name


def real_pages(data_dir: Path) -> list[str]:
    from pipelines.extract import decode
    from pipelines.warc.pages import read_pages
    from pipelines.warc.rangefile import RangeFile
    from pipelines.warc.record import Page

    files = [RangeFile(str(file)) for file in sorted((data_dir / "html_gold").glob("*.warc.gz"))]
    found = [one for file in files for one in read_pages(file, 8 << 20) if isinstance(one, Page)]
    return [decode(one.payload, one.charset) for one in found]


def test_texts_equal_the_librarys_on_real_pages(data_dir: Path) -> None:
    asked = [(page, index % 4 != 0) for index, page in enumerate(real_pages(data_dir)[::9])]
    assert len(asked) > 60
    assert differing(asked) == []


@pytest.mark.slow
def test_texts_equal_the_librarys_on_all_real_pages(data_dir: Path) -> None:
    asked = [(page, fast) for page in real_pages(data_dir) for fast in (True, False)]
    assert len(asked) > 1300
    assert differing(asked) == []


def test_nothing_that_the_patches_stand_on_has_changed() -> None:
    found = library_digests()
    changed = sorted(name for name in {*found, *KNOWN} if found.get(name) != KNOWN.get(name))
    assert not changed, (
        f"{', '.join(changed)}: the library differs from the one that `maintext.quicken` was written for. Read what changed "
        "there and what reads it, run `pytest -m slow tests/pipelines/html/test_patches.py` with GRISTMILL_TEST_DATA, then "
        f"write into KNOWN: { {name: found.get(name) for name in changed} }"
    )


def test_a_digest_changes_with_what_a_part_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(READ, "an_old_mill", ("grind", "STONES"))
    found = []
    for text in (
        "def grind(): return 1\nSTONES = 2",
        "def grind():  # corn\n    return 1",
        "def grind(): return 2\nSTONES = 2",
    ):
        (tmp_path / "an_old_mill.py").write_text(text)
        found.append([library_digests()[f"an_old_mill.{name}"] for name in ("grind", "STONES")])
    (one, stones), remarked, (other, same) = found
    assert remarked == [one, "gone"]
    assert (other != one, same) == (True, stones)
