"""Benches of what lies between documents and training: mixtures, order, tokenizers, packing, reading."""
