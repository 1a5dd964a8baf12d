"""Pure functions over text, URLs and crawl records, which know nothing of Spark."""
