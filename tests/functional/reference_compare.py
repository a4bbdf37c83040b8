"""Words and comparisons once more, in plain loops over Python floats, without a line of ours."""

import math
from collections import OrderedDict

NAN = float("nan")


def groups(words):
    found = OrderedDict()
    for place, word in enumerate(words):
        found.setdefault(f"alone {place}" if word is None else f"word {word}", []).append(place)
    return list(found.values())


def pool(matrix, words, query_words):
    """One head, nested lists `[query][key]`."""
    result = []
    for rows in groups(query_words):
        line = []
        for columns in groups(words):
            line.append(math.fsum(math.fsum(float(matrix[i][j]) for j in columns) for i in rows) / len(rows))
        result.append(line)
    return result


def renormalise(row, left_out):
    rest = math.fsum(float(a) for a, out in zip(row, left_out, strict=True) if not out)
    kept = [0.0 if out else (float(a) / rest if rest else NAN) for a, out in zip(row, left_out, strict=True)]
    return kept, math.fsum(float(a) for a, out in zip(row, left_out, strict=True) if out)


def divergence(p, q):
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += sum(x * math.log(x / middle) for x in (a, b) if x > 0) / 2
    return total


def maps(first, second, valid, valid_queries, positions, causal):
    """One head of several examples, `[example][query][key]` → (js, Pearson's r)."""
    divergences, cells = [], []
    for example, keys_valid in enumerate(valid):
        for query, place in enumerate(positions):
            keys = [j for j, real in enumerate(keys_valid) if real and (not causal or j <= place)]
            if not valid_queries[example][query] or not keys:
                continue
            p, q = ([float(side[example][query][j]) for j in keys] for side in (first, second))
            divergences.append(divergence(p, q))
            cells += list(zip(p, q, strict=True))
    if not divergences:
        return NAN, NAN
    return math.fsum(divergences) / len(divergences), correlation(cells)


def correlation(cells):
    means = [math.fsum(side) / len(cells) for side in zip(*cells, strict=True)]
    xs, ys = ([pair[n] - means[n] for pair in cells] for n in (0, 1))
    if any(max(map(abs, side)) <= 4 * 2**-52 * max(abs(pair[n]) for pair in cells) for n, side in enumerate((xs, ys))):
        return NAN
    top = math.fsum(x * y for x, y in zip(xs, ys, strict=True))
    return top / math.sqrt(math.fsum(x * x for x in xs) * math.fsum(y * y for y in ys))


def row(weights, own, special, choices):
    nats = -math.fsum(a * math.log(a) for a in weights if a > 0)
    return {
        "entropy": nats,
        "normalised_entropy": nats / math.log(choices) if choices > 1 else NAN,
        "first_word": weights[0],
        "special_tokens": math.fsum(a for a, out in zip(weights, special, strict=True) if out),
        "own_word": weights[own],
        "confidence": max(weights),
    }
