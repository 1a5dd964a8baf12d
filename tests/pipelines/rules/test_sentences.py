"""Sentences by hand-made cases; `test_scores` holds the count against a plain definition on real pages."""

import pytest

from pipelines.rules.sentences import count_sentences
from pipelines.text.words import Text


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Mr. Smith met Mrs. Jones and Dr. Brown at St. Mary's. They talked.", 2),
        ("J. R. R. Tolkien and George W. Bush met.", 1),
        ("It was you and I. Then he left.", 2),
        ("The U.S. army, i.e. its infantry, came at 5 p.m. on Monday.", 1),
        ("He lives in the U.S. She does not.", 2),
        ("Apples, pears, etc. are fruit. Plums, etc. Then more.", 3),
        ("See No. 7, Fig. 3 and pp. 12 of Roe v. Wade. He said no. They left.", 3),
        ("It costs 3.14 today. It cost 2. Now more.", 3),
        ("Signed by the Mr.\nNext line.", 2),  # the end of a line ends a sentence
        ("Ends with Mr.", 1),
        ("He sat. she ran. so it was!", 3),  # no abbreviation, whatever the case of what follows
        ("Mr.Smith came.", 1),
        ("Wait, Mr... Smith?! Yes.", 3),
        ("Отец И. С. Тургенева. Он жил.", 2),
        ("x" * 40 + ". Then.", 2),
        (". . Mr. .", 3),
        ("一。二。", 2),
    ],
)
def test_a_dot_behind_an_abbreviation_ends_no_sentence(text, sentences):
    assert count_sentences(Text(text)) == sentences
