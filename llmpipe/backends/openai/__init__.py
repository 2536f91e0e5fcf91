"""OpenAI-compatible endpoints: requests, streams, and the journal that keeps every reply."""
