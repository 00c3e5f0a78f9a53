"""Orders of neighbours as their definition has them, written as loops."""


def nearest_by_loops(cosines, k):
    """Of each row the k nearest: itself, then by falling cosine, then by row."""
    return [[i, *sorted((j for j in range(len(row)) if j != i), key=lambda j: (-row[j], j))][:k]
            for i, row in enumerate(cosines)]
