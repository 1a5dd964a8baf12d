"""Find the items of evaluation sets in the corpus and report the findings."""
