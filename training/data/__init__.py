"""What training reads: packed tokens and examples."""
