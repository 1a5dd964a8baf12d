"""How Spark runs a stage: jobs, sessions, the documents that stages pass on, and exchanges between workers."""
