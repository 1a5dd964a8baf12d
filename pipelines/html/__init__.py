"""HTML pages: extracts their main text, and skips those in unwanted languages."""
