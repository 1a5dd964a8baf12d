"""Examples for chat models: made by rules from the corpus, told apart, and sifted."""
