"""What `score` measures of every document: the numbers that the rules of `filter` judge, and that a recipe may name."""

SCORES = (
    # of the text as it was extracted
    "duplicate_lines",
    "duplicate_line_chars",
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
    *(f"top_{n}gram" for n in (2, 3, 4)),
    *(f"duplicate_{n}grams" for n in (5, 6, 7, 8, 9, 10)),
    "words",
    "mean_word_chars",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "stop_words",  # distinct ones; null for a language without a list
    "lorem_ipsum",
    "curly_brackets",
    "bad_words",  # null where the recipe names no lists
    "long_lines",
    "char_repetition",
    "word_repetition",
    "special_chars",
    "stop_word_fraction",
    "bad_word_fraction",
    "perplexity",  # null where the recipe names no model
    # of what line corrections and C4's line rules, where those are on, left of it
    "removed_word_fraction",  # by line corrections
    "kept_words",
    "sentences",
    "punctuated_lines",
    "kept_duplicate_line_chars",
    "short_lines",
    "masked",  # e-mail addresses, IP addresses, telephone numbers
)

NEEDED = {"perplexity": "perplexity_model", "bad_words": "bad_words", "bad_word_fraction": "bad_words"}
"""Scores that are measured only where this setting of `score` names something."""
