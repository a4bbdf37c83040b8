"""Alignment and word times once more, in plain loops over Python floats, without a line of ours."""

import math

from tests.functional import reference


def argmax_links(weights):
    """The cells (target, source); of equal weights the first source."""
    return {(t, row.index(max(row))) for t, row in enumerate(weights) if not any(map(math.isnan, row))}


def joined(weights, targets, sources):
    """Sum over the pieces of the source word, mean over those of the target word."""
    result = []
    for target in sorted(set(targets)):
        rows = [weights[n] for n, word in enumerate(targets) if word == target]
        result.append(
            [
                math.fsum(row[n] for row in rows for n, word in enumerate(sources) if word == source) / len(rows)
                for source in sorted(set(sources))
            ]
        )
    return result


def median_filter(row, width):
    half = width // 2
    if len(row) <= half:
        return list(row)
    mirrored = [row[n] for n in range(half, 0, -1)] + list(row) + [row[-1 - n] for n in range(1, half + 1)]
    return [sorted(mirrored[n : n + width])[half] for n in range(len(row))]


def spoken_frames(heads, width):
    """`heads[head][row][frame]` → the first frame of each row."""
    rows, frames = len(heads[0]), len(heads[0][0])
    total = [[0.0] * frames for _ in range(rows)]
    for head in heads:
        scores = [[0.0] * frames for _ in range(rows)]
        for frame in range(frames):
            column = [head[row][frame] for row in range(rows)]
            middle = math.fsum(column) / rows
            spread = math.sqrt(math.fsum((value - middle) ** 2 for value in column) / rows)
            for row in range(rows):
                scores[row][frame] = (column[row] - middle) / spread if spread else 0.0
        for row in range(rows):
            for frame, value in enumerate(median_filter(scores[row], width)):
                total[row][frame] += value / len(heads)
    path, _ = reference.dtw_whisper([[-value for value in row] for row in total])
    return [min(frame for place, frame in path if place == row) for row in range(rows)]


def pharaoh(links):
    return " ".join(sorted({f"{s}-{t}" for s, t in links}, key=lambda word: tuple(map(int, word.split("-")))))
