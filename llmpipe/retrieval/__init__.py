"""Retrieve passages of documents for a question and answer it with citations."""
