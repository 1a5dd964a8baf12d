"""Sources beside the crawl: files of rows in the layouts of published corpora, as documents."""
