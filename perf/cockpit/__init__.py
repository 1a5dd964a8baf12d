"""Speed and safety of the cockpit, on a synthetic store of ten million documents and a thousand runs."""
