"""Roles, intervals, uniform attention, flow, CKA and distances once more, in plain loops over Python floats.

Attention is a float64 array `[layer, batch, head, query, key]`; masks are nested lists, `positions` has -1 for a row
that stands on no key.
"""

import collections
import itertools
import math

import numpy as np

NAN = float("nan")


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values) if values else NAN


def real_rows(valid, valid_queries, positions, causal):
    """(example, query, the keys it may see) of every row that may see one."""
    for example, reals in enumerate(valid):
        for query, place in enumerate(positions):
            keys = [key for key, real in enumerate(reals) if real and (not causal or key <= place)]
            if valid_queries[example][query] and keys:
                yield example, query, keys


def uniform_like(attention, valid):
    layers, batch, heads, queries, keys = attention.shape
    result = np.zeros((layers, batch, 1, queries, keys))
    for layer, example, query in itertools.product(range(layers), range(batch), range(queries)):
        rows = [attention[layer, example, head, query] for head in range(heads)]
        seen = [key for key in range(keys) if valid[example][key] and any(row[key] != 0 for row in rows)]
        for key in seen:
            result[layer, example, 0, query, key] = 1 / len(seen)
    return result


# roles


def role_rows(weights, example, query, keys, place, tokens, delimiters, causal, valid, period, seen):
    """What one row adds: role -> number, for the roles that it says something about."""
    row = [float(a) for a in weights]
    found = {}
    real = [key for key, is_real in enumerate(valid[example]) if is_real]
    if len(keys) > 1:
        found["broad"] = -math.fsum(row[key] * math.log(row[key]) for key in keys if row[key] > 0) / math.log(len(keys))
    if seen:
        found["first_token_sink"] = row[real[0]]
    marked = [key for key in keys if delimiters[example][key]]
    if marked:
        found["delimiter"] = math.fsum(row[key] for key in marked)
    if place < 0:
        return found
    largest = max(row[key] for key in keys)
    winners = [key for key in keys if row[key] == largest]
    for name, neighbour in (("previous_token", place - 1), ("next_token", place + 1)):
        if neighbour in keys:
            found[name] = row[neighbour]
            found[f"{name} wins"] = (neighbour in winners) / len(winners)
    if not valid[example][place]:
        return found
    ids = tokens[example]
    copies = [key for key in real if key < place and ids[key] == ids[place]]
    visible = [key for key in copies if key in keys]
    if visible:
        found["duplicate_token"] = math.fsum(row[key] for key in visible)
    after = [key + 1 for key in copies if key + 1 in keys]
    if after:
        found["induction"] = math.fsum(row[key] for key in after)
    chosen = [key for key in copies if place - key == period] if period else copies[-1:]
    chosen = [key + 1 for key in chosen if key + 1 in keys]
    if chosen:
        found["induction_stripe"] = math.fsum(row[key] for key in chosen)
    return found


def head_roles(attention, tokens, delimiters, valid, valid_queries, positions, causal, period=None):
    names = [
        "positional",
        "previous_token",
        "next_token",
        "delimiter",
        "first_token_sink",
        "duplicate_token",
        "induction",
        "induction_stripe",
        "induction_mul",
        "broad",
    ]
    layers, _, heads, _, _ = attention.shape
    result = {name: np.full((layers, heads), NAN) for name in names}
    for layer, head in itertools.product(range(layers), range(heads)):
        values, seen = collections.defaultdict(list), set()
        copied, whole = collections.defaultdict(float), collections.defaultdict(float)
        for example, query, keys in real_rows(valid, valid_queries, positions, causal):
            weights = attention[layer, example, head, query]
            found = role_rows(
                weights, example, query, keys, positions[query], tokens, delimiters, causal, valid, period,
                example in seen,
            )  # fmt: skip
            seen.add(example)
            whole[example] += math.fsum(float(weights[key]) for key in keys)
            if "induction" in found:
                copied[example] += found["induction"]
            for name, value in found.items():
                values[name].append(value)
        for name in names:
            result[name][layer, head] = mean(values[name])
        sides = [mean(values[f"{name} wins"]) for name in ("previous_token", "next_token")]
        result["positional"][layer, head] = max((side for side in sides if not math.isnan(side)), default=NAN)
        result["induction_mul"][layer, head] = mean(copied[example] / whole[example] for example in copied)
    return result


# intervals


def interval(examples, *, level=0.95, resamples=1000, seed=0, fewest=5):
    """`examples`: for each, the list of its rows' numbers; the mean over rows, its percentiles over drawn examples."""
    if sum(bool(rows) for rows in examples) < fewest:
        return NAN, NAN
    drawn = np.random.default_rng(seed).integers(len(examples), size=(resamples, len(examples)))
    means = [mean(row for n in draw for row in examples[n]) for draw in drawn.tolist()]
    means = sorted(one for one in means if not math.isnan(one))
    return percentile(means, (1 - level) / 2), percentile(means, (1 + level) / 2)


def percentile(ordered, share):
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


# flow


def flow(attention, residual):
    """The whole network, a node a layer and token; the widest shortest ways filled until none is left."""
    layers, heads, tokens, _ = attention.shape
    result = np.zeros((tokens, tokens))
    for query, key in itertools.product(range(tokens), repeat=2):
        room = collections.defaultdict(dict)
        for layer, i, j in itertools.product(range(layers), range(tokens), range(tokens)):
            size = (1 - residual) * mean(float(attention[layer, h, i, j]) for h in range(heads)) + residual * (i == j)
            room[layer + 1, i][layer, j] = size
            room[layer, j].setdefault((layer + 1, i), 0.0)
        result[query, key] = fill(room, (layers, query), (0, key))
    return result


def fill(room, source, sink):
    total = 0.0
    while True:
        came, waiting = {source: None}, [source]
        while waiting and sink not in came:
            node = waiting.pop(0)
            for other, size in room[node].items():
                if size > 1e-13 and other not in came:
                    came[other] = node
                    waiting.append(other)
        if sink not in came:
            return total
        way, node = [], sink
        while came[node] is not None:
            way.append((came[node], node))
            node = came[node]
        least = min(room[a][b] for a, b in way)
        for a, b in way:
            room[a][b] -= least
            room[b][a] += least
        total += least


def smallest_cut(attention, residual, query, key):
    """The least capacity that parts the query from the key, every way of parting the network tried."""
    layers, heads, tokens, _ = attention.shape
    nodes = [(layer, i) for layer in range(1, layers) for i in range(tokens)]
    best = math.inf
    for kept in itertools.product([False, True], repeat=len(nodes)):
        above = {node for node, is_kept in zip(nodes, kept, strict=True) if is_kept} | {(layers, query)}
        cut = 0.0
        for layer, i, j in itertools.product(range(layers), range(tokens), range(tokens)):
            below_is_above = (layer, j) in above
            sink_side = not below_is_above and (layer > 0 or j == key)
            if (layer + 1, i) in above and sink_side:
                weight = sum(float(attention[layer, h, i, j]) for h in range(heads)) / heads
                cut += (1 - residual) * weight + residual * (i == j)
        best = min(best, cut)
    return best


# likeness of outputs


def gram(rows):
    return [[math.fsum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]


def centred_gram(rows):
    columns = list(zip(*rows, strict=True))
    return gram([[a - mean(column) for a, column in zip(row, columns, strict=True)] for row in rows])


def product(first, second):
    return math.fsum(a * b for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def u_centred(table):
    """The unbiased centring of Székely & Rizzo (2014), whose inner product is the unbiased HSIC, twice over."""
    n = len(table)
    off = [[0.0 if i == j else table[i][j] for j in range(n)] for i in range(n)]
    sums, total = [math.fsum(row) for row in off], math.fsum(map(math.fsum, off))
    return [
        [
            0.0 if i == j else off[i][j] - sums[i] / (n - 2) - sums[j] / (n - 2) + total / ((n - 1) * (n - 2))
            for j in range(n)
        ]
        for i in range(n)
    ]


def cka(outputs, debiased):
    heads = len(outputs)
    grams = [u_centred(gram(head)) if debiased else centred_gram(head) for head in outputs.tolist()]
    result = np.full((heads, heads), NAN)
    for a, b in itertools.product(range(heads), repeat=2):
        own = product(grams[a], grams[a]), product(grams[b], grams[b])
        if min(own) > 1e-20:
            result[a, b] = product(grams[a], grams[b]) / math.sqrt(own[0] * own[1])
    return result


# pictures


def image_distance(attention, rows, columns, patch, prefix):
    layers, batch, heads, _, _ = attention.shape
    centres = [((r + 0.5) * patch, (c + 0.5) * patch) for r in range(rows) for c in range(columns)]
    result = np.full((layers, heads), NAN)
    for layer, head in itertools.product(range(layers), range(heads)):
        found = []
        for example, query in itertools.product(range(batch), range(len(centres))):
            row = [float(a) for a in attention[layer, example, head, prefix + query, prefix:]]
            if sum(row):
                apart = [math.dist(centres[query], centre) for centre in centres]
                found.append(math.fsum(a * d for a, d in zip(row, apart, strict=True)) / math.fsum(row))
        result[layer, head] = mean(found)
    return result
