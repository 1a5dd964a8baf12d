"""Filters URLs, and recognizes URLs of the same page."""
