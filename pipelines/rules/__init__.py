"""Scores of a text, and the rules that drop documents by their scores."""
