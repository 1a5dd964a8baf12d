"""What makes no difference between two words."""

import pytest

from pipelines.text.folding import fold, normalize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  WORLD!\n\tTwice", "hello world twice"),
        ("Na\u00efve caf\u00e9 \u00c5ngstr\u00f6m", "naive cafe angstrom"),
        ("in 1999 it cost 3.14, not 2,000", "in 0 it cost 0 not 0"),
        ("don't \u201cquote\u201d \u2014 me", "dont quote me"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e\u0964",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
        ),
        ("he <b>bought</b>|sold and/or <i>kept</i><br />it, a<b", "he bought sold and or kept it a b"),
        ("state-of-the-art don't", "stateoftheart dont"),
        ("\u4e2d\u6587\u3002x", "\u4e2d \u6587 x"),
        ("smile \U0001f600 now", "smile now"),
        ("\u0661\u0662 \u0663", "0 0"),
        ("...", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_fold() -> None:
    folded = {
        "É": "e",
        "ß": "ß",
        "ς": "σ",
        "７": "0",
        "!": "",
        "'": "",
        "-": "",
        "<": " ",
        ">": " ",
        "/": " ",
        "|": " ",
        "\u0301": "",
        "\u200b": "",
        "\n": " ",
        "漢": " 漢 ",
        "が": " が ",
    }
    assert {one: fold(one) for one in folded} == folded
