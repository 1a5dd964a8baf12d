"""`make bench`: how fast the hot stages are, against floors that were measured. Run it on a quiet machine."""
