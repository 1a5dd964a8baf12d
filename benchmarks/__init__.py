"""Measurements with bars. Every one ends with lines `BAR <name> <value> <bar> ok|short` and fails where one is short."""
