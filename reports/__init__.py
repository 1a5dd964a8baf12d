"""Reports on a run, as text and charts: why a page was dropped, what the filters did, what a tokenizer makes of it."""
