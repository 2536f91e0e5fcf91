"""What an answer is worth, and how sure one can be of it: pure functions of texts and numbers."""
