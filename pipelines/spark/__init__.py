"""How Spark runs a stage: its job, its session, exchanges between workers, and who survives deduplication."""
