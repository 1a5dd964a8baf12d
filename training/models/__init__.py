"""The language model: built, loaded, saved, and measured."""
