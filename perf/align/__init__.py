"""Benches of alignment: what a reward model learns, and that nothing is cut from a chat without being counted."""
