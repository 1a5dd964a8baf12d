"""Vocabularies: trained, brought from elsewhere, expanded, and measured."""
