"""Benches of alignment: speed beside peers, known answers, resuming, and what a reward model is worth."""
