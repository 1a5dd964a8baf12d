"""HTML pages: their main text, and whether their language is wanted."""
