"""URLs: which may enter, and which show the same page."""
