"""Two texts are compared exactly where that is possible in bounded time, and not at all where it is not."""

import random

import pytest

from reports.edits import CHARS, STEPS, Comparison, TooDifferentError, edits_of


def common(one, other):
    """The length of the longest common subsequence, by the plain table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, piece in enumerate(one):
        for j, second in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if piece == second else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_changes_lead_from_one_list_to_the_other_and_keep_as_much_as_can_be_kept():
    made = random.Random(1)
    for _ in range(1000):
        one, other = ([made.choice(letters) for _ in range(made.randint(0, 9))] for letters in ("abcd", "abce"))
        found, at, kept = [], 0, 0
        for a, b, c, d in Comparison().changes(one, other):
            assert one[at:a] == other[len(found) : c]
            kept += a - at
            found += one[at:a] + other[c:d]
            at = b
        assert found + one[at:] == other
        assert kept + len(one) - at == common(one, other)


@pytest.mark.parametrize(
    ("before", "after", "edits"),
    [
        ("a  b\n", "a  b", []),
        ("one two three", "one three", [(4, 4, "two ")]),
        ("one two", "one two three", [(7, 13, "")]),
        ("Menu\na\nb\nMenu\n", "a\nb", [(0, 0, "Menu\n"), (3, 3, "Menu\n")]),
        ("tell a@b.example and c@d.example", "tell x and x", [(5, 6, ""), (11, 12, "")]),
        ("", "a", [(0, 1, "")]),
        ("a", "", [(0, 0, "a")]),
        ("", "", []),
    ],
)
def test_edits_are_told_by_words(before, after, edits):
    assert edits_of(before, after) == edits


def shuffled(count, seed):
    return " ".join(random.Random(seed).choices("abcdefgh", k=count))


@pytest.mark.parametrize("end", ["\n", " "])
@pytest.mark.parametrize("count", [2000, 4000, 8000, 16_000, 32_000, 64_000])
def test_texts_that_share_little_are_given_up_after_a_number_of_steps(count, end):
    """Of lines as of words: however long the texts, no more steps are taken than allowed."""
    one, other = (shuffled(count, seed).replace(" ", end) for seed in (1, 2))
    comparison = Comparison(100_000)
    with pytest.raises(TooDifferentError):
        list(comparison.changes(one.split(end), other.split(end)))
    assert comparison.steps > -count - 2, "it ends with the step that was one too many"
    with pytest.raises(TooDifferentError):
        edits_of(one, other, 100_000)


def test_the_steps_of_a_comparison_are_counted_over_all_changed_lines():
    lines = [[f"{shuffled(60, (seed, at).__repr__())} end\n\n{at}\n" for at in range(50)] for seed in (1, 2)]
    one, other = ("".join(each) for each in lines)
    assert edits_of(one, other)
    with pytest.raises(TooDifferentError):
        edits_of(one, other, 5000)


@pytest.mark.parametrize("count", [1000, 2000, 4000, 8000])
def test_what_only_one_text_has_costs_no_steps(count):
    """Lines of a menu, a word that a mask replaced: a page with many of them is compared in as many steps as it has lines."""
    kept = [f"line {at} tells" for at in range(count)]
    before = "\n".join(f"menu {at}\n{line}" for at, line in enumerate(kept))
    comparison = Comparison()
    assert len(list(comparison.changes(before.split("\n"), kept))) == count
    assert STEPS - comparison.steps == count + 1
    assert len(edits_of(before, "\n".join(kept))) == count


def test_long_texts_are_not_compared():
    assert edits_of("a " * (CHARS // 4), "a " * (CHARS // 4)) == []
    with pytest.raises(TooDifferentError):
        edits_of("a" * CHARS, "b")
