"""Synthetic vectors that lie as embeddings do: in clusters, on the unit sphere.

A mixture of Gaussians: the centers are directions drawn evenly from the sphere, one for every
hundred vectors; a vector is a center drawn with equal chance, plus Gaussian noise whose length is
0.8 in the mean, scaled to length one. Queries are further draws of the same mixture.
"""

from __future__ import annotations

from pathlib import Path

SEED = 1234
DIMENSION = 384
PER_CENTER = 100
NOISE = 0.8
AT_ONCE = 20_000


def write_clustered(folder: Path, vectors: int, queries: int) -> tuple[Path, Path]:
    """Write ``vectors.npy`` and ``queries.npy``, float32, and give their paths."""
    import numpy as np

    chance = np.random.default_rng(SEED)
    centers = chance.standard_normal((max(1, vectors // PER_CENTER), DIMENSION), np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    paths = folder / "vectors.npy", folder / "queries.npy"
    for path, count in zip(paths, (vectors, queries), strict=True):
        drawn = np.empty((count, DIMENSION), np.float32)
        for begin in range(0, count, AT_ONCE):
            part = drawn[begin : begin + AT_ONCE]
            part[:] = chance.standard_normal(part.shape, np.float32) * NOISE / DIMENSION**0.5
            part += centers[chance.integers(0, len(centers), len(part))]
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        np.save(path, drawn)
    return paths
