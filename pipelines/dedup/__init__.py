"""Duplicates: near ones by MinHash or SimHash, repeated passages by their exact words."""
