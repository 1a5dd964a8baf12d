"""Languages written without spaces between words. The rules count each of their characters as a word."""

# Mean characters per dictionary word in running text, rounded: Chinese 1.6, Japanese 2. Thai and its neighbours need
# more, because their vowels are separate characters.
UNITS = {"zh": 2, "yue": 2, "wuu": 2, "ja": 2, "th": 4, "lo": 4, "km": 4, "my": 4, "bo": 4, "dz": 4}


def unit(language: str | None) -> int:
    """Counted words per word of the language: 1, or characters per word in scripts without spaces."""
    return UNITS.get(language or "", 1)
