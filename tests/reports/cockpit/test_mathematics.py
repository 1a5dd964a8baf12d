"""Formulas become MathML of named elements alone; all else of a text is escaped."""

import re
import time

import pytest

from reports.cockpit.mathematics import DEEPEST, FORMULA_CHARS, TEXT_CHARS, with_formulas

HALF = "<mrow><mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac></mrow></math>"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (r"Half: $\frac{1}{2}$.", f'Half: <math display="inline">{HALF}.'),
        (r"\(\frac{1}{2}\)", f'<math display="inline">{HALF}'),
        (r"$$\frac{1}{2}$$", f'<math display="block">{HALF}'),
        (r"\[\frac{1}{2}\] & <b>", f'<math display="block">{HALF} &amp; &lt;b&gt;'),
        ("It costs $5 and $10 or so.", "It costs $5 and $10 or so."),
        ("$a$1 and $$ $$", "$a$1 and $$ $$"),
        ("$a\n\nb$", "$a\n\nb$"),
        (r"\(x", r"\(x"),
        (r"$\left($", r"$\left($"),
        ("$a<b$", '<math display="inline"><mrow><mi>a</mi><mo>&lt;</mo><mi>b</mi></mrow></math>'),
    ],
)
def test_formulas_between_marks_are_drawn(text: str, html: str) -> None:
    assert str(with_formulas(text)) == html


@pytest.mark.parametrize(
    "formula",
    [
        r"\text{<b onclick=alert(1)>hi</b>}",
        r"\text{&lt;script&gt;alert(1)&lt;/script&gt;}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(//evil)}{x}",
        r'\class{" onload="alert(1)}{x}',
        r'\color{red" onmouseover="alert(1)}{x}',
        r"\hspace{9999em}x",
        r"\mathop{<script>}",
        r"\operatorname{<script>alert(1)</script>}",
    ],
)
def test_nothing_of_a_formula_runs_links_or_covers_the_page(formula: str) -> None:
    made = str(with_formulas(f"${formula}$"))
    tags = re.findall(r"<([^>]*)>", made)
    assert all(
        re.fullmatch(r'/?m[a-z]+|m[a-z]+( (display|stretchy|mathvariant|form)="[a-z]+")+', tag) for tag in tags
    ), made


def test_what_is_too_long_or_too_deep_stays_as_it_was_written() -> None:
    for formula in ("x" * (FORMULA_CHARS + 1), "{" * DEEPEST + "x" + "}" * DEEPEST, "{" * 400 + "x" + "}" * 400):
        assert str(with_formulas(f"${formula}$")) == f"${formula}$"
    several = "$" + "x" * 500 + "$ "
    made = str(with_formulas(several * 20))
    assert made.count("<math") == TEXT_CHARS // 500
    assert made.count("$") == 2 * (20 - TEXT_CHARS // 500)


@pytest.mark.parametrize("piece", ["$", "$$", r"\(", r"\[", "$x", r"\(x ", "$a$", r"$\frac", "${", r"$\text{", "$ x $"])
def test_every_text_ends_soon(piece: str) -> None:
    text = (piece * 20_000)[:20_000]
    with_formulas("$x$")  # the converter is slow to import
    begun = time.process_time()
    with_formulas(text)
    assert time.process_time() - begun < 2
