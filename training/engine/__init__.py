"""How training runs: processes, DeepSpeed, checkpoints and curves."""
