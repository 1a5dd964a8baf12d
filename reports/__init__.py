"""Reports on a run, as text and charts: why a page was dropped, and what the filters did, what the tokenizer makes of texts."""
