"""What measures models: how good one is, how sure that is, and whether another is better. It sees numbers alone."""
