"""Benches of pretraining: speed, checkpoints, resuming, what it survives, and what an estimate is worth."""
