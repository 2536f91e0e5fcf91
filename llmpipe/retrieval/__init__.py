"""Find the passages of documents that answer a question, and answer with citations of them."""
