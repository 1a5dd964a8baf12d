"""What the rules know of languages whose scripts put no spaces between words: there a character is counted as a word."""

# Characters of a dictionary word of running text, rounded: Chinese 1.6, Japanese 2; Thai and its neighbours write vowels apart.
UNITS = {"zh": 2, "yue": 2, "wuu": 2, "ja": 2, "th": 4, "lo": 4, "km": 4, "my": 4, "bo": 4, "dz": 4}


def unit(language: str | None) -> int:
    """How many counted words make one word of a language."""
    return UNITS.get(language or "", 1)
