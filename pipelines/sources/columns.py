"""The names under which rows of public collections hold what a document needs."""

CODE_REPO = ("repo", "repo_name", "repository", "max_stars_repo_name")
CODE_PATH = ("path", "file_path", "max_stars_repo_path")
CODE_TEXT = ("content", "code", "text")
LICENSE = ("license", "licenses", "max_stars_repo_licenses", "detected_licenses")
URL = ("url", "source_url", "warc-target-uri")
DATE = ("date", "timestamp", "created", "publication_date", "warc-date")
FIELDS = frozenset(
    {*CODE_REPO, *CODE_PATH, *CODE_TEXT, *LICENSE, *URL, *DATE, "title", "language", "lang", "meta", "metadata"}
    | {"warc_headers", "identification", "uniqueKey", "id", "source", "added"}
)
"""Every field that a layout asks for, at the top of a row."""
