"""Is a merged model the one that was trained? ``python -m benchmarks.merge``.

Adapters of several kinds (`cases`) are trained by llmpipe's own ``train`` stage on a small model
(`training`), merged in three ways (`merges`), and each product's predictions on held-out text are
held against those of the adapter on its base, as training computed them (`predictions`).
"""
