"""OpenAI-compatible endpoints: requests, streams, and the journal of replies."""
