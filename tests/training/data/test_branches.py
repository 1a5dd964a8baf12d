"""Replies that share their prompt's row: where everything stands, and what each token sees, by hand."""

from training.data.branches import branched


def test_a_prompt_stands_once_and_its_replies_do_not_see_each_other() -> None:
    made = branched([([5, 6], [[7], [8, 9]])], pad=0, device="cpu")
    assert made.tokens.tolist() == [[5, 6, 7, 8, 9]]
    assert made.positions.tolist() == [[0, 1, 2, 2, 3]], "each reply follows the prompt"
    assert made.seen.int().tolist() == [
        [
            [
                [1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 1, 1, 0, 0],
                [1, 1, 0, 1, 0],
                [1, 1, 0, 1, 1],
            ]
        ]
    ]
    assert (made.rows.tolist(), made.places.tolist()) == ([0, 0], [2, 4]), "the last token of each reply"


def test_short_prompts_share_a_row_and_ends_keep_the_order_of_the_prompts() -> None:
    groups = [([1], [[2], [3]]), ([4, 5, 6], [[7, 8], [9]]), ([10], [[11]])]
    made = branched(groups, pad=0, device="cpu")
    assert made.tokens.tolist() == [[4, 5, 6, 7, 8, 9], [1, 2, 3, 10, 11, 0]], "the longest first"
    assert made.positions.tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 1, 0, 1, 0]]
    assert [*zip(made.rows.tolist(), made.places.tolist(), strict=True)] == [(1, 1), (1, 2), (0, 4), (0, 5), (1, 4)]
    assert made.seen[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ], "padding sees itself, so that its softmax is defined"
