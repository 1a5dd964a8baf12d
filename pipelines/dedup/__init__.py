"""Deduplication: near-duplicate documents by MinHash or SimHash, repeated passages by exact match."""
