"""The Spark plane, from crawl files to token shards. Each stage is one file in this folder."""
