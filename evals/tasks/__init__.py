"""Benchmarks: how an item of a published file is read, asked, and how an output is graded. No model is needed."""
