"""What is measured of a text, and the rules that decide on it."""
