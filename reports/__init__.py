"""What people ask of a run: why a page was dropped, what the filters did, as text and charts."""
