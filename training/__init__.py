"""The GPU plane: one file a stage, from token shards to a chat model."""
