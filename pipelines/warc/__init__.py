"""Reads pages from crawl files, and continues behind any damage."""
