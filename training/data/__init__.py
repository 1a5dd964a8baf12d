"""What training reads: packed tokens, examples, and those that are made from the corpus."""
