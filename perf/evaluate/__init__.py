"""Evaluation: are answers found, are formulas exact, do judges' biases show, does the sandbox hold."""
