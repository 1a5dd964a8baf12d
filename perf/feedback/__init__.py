"""Feedback with simulated people: what their votes tell of a known reward, and whether any vote is lost or doubled."""
