"""The special tokens of a tokenizer, which mark the turns of a chat and the end of a text."""

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, USER, ASSISTANT, SYSTEM)  # a tokenizer's first ids, in this order
