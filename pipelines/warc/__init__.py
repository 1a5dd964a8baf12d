"""Crawl files: from bytes to pages, through whatever damage a file has."""
