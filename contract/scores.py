"""The scores that `score` computes for every document; rules of `filter` judge them, and a recipe may name them."""

SCORES = (
    # of the extracted text
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
    "stop_words",  # distinct stop words; null for a language without a list
    "lorem_ipsum",
    "curly_brackets",
    "bad_words",  # null if the recipe names no lists
    "long_lines",
    "char_repetition",
    "word_repetition",
    "special_chars",
    "stop_word_fraction",
    "bad_word_fraction",
    "perplexity",  # null if the recipe names no model
    # of the text after line corrections and C4's line rules, if they are enabled
    "removed_word_fraction",  # by line corrections
    "kept_words",
    "sentences",
    "punctuated_lines",
    "kept_duplicate_line_chars",
    "short_lines",
    "masked",  # number of e-mail addresses, IP addresses and telephone numbers
)

NEEDED = {"perplexity": "perplexity_model", "bad_words": "bad_words", "bad_word_fraction": "bad_words"}
"""Score -> the setting of `score` that must be set for it to be computed."""
