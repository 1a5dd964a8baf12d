"""The Spark plane: one file a stage, from crawl files to token shards."""
