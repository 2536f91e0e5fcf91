"""What searches find of questions' own answers: ``python -m benchmarks.retrieval``.

Collections (`sets`) go through the stages that a spec would run (`pipeline`), and beside them
through sentence-transformers and numpy alone, which must find the same by meaning.
"""
