"""What retrieval costs and finds, beside its parts used plainly and beside peers.

``python -m benchmarks.rag`` runs the measurements of this package one after the other, each a
module of its own with a function ``measure``:

- `embedding`: the embedder of the embed stage, beside sentence-transformers called plainly;
- `vector_search`: building and searching an index, beside FAISS called plainly;
- `update`: one document in a hundred edited, beside a fresh build, through ``llmpipe run``;
- `latency`: where the time of a question goes;
- `load`: many clients at once against ``llmpipe serve``;
- `peers`: LangChain, txtai and Haystack on the same documents with the same embedder.

Whatever is timed side by side runs in a process of its own (`contender`) with the same number of
threads, and is asked in turn, so that all meet the machine's moods.
"""
