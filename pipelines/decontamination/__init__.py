"""Evaluation sets in the corpus: finding them, and reporting what was found."""
