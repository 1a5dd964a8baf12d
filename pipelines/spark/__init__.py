"""How Spark runs a stage: jobs, sessions, exchanges between workers, and the documents left after deduplication."""
