"""The GPU plane, from token shards to a chat model: one file per stage."""
