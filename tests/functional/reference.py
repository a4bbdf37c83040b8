"""The definitions once more, in plain loops over Python floats: slow, obvious, and without a line of ours.

Attention is a float64 array `[layer, batch, head, query, key]`; masks are nested lists of bools; `positions` is a list,
-1 for a row that stands on no key.
"""

import collections
import itertools
import math

import numpy as np

NAN = float("nan")


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values) if values else NAN


def entropy(row):
    return -math.fsum(a * math.log(a) for a in row if a > 0)


def jensen_shannon(p, q):
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    kl = [math.fsum(a * math.log(a / m) for a, m in zip(x, middle, strict=True) if a > 0) for x in (p, q)]
    return sum(kl) / 2


def allowed_keys(query, valid, positions, causal):
    return [key for key in range(len(valid)) if valid[key] and (not causal or key <= positions[query])]


def real_rows(batch, valid, valid_queries, positions, causal):
    """(example, query, its allowed keys), rows without any left out."""
    for example in range(batch):
        for query in range(len(positions)):
            keys = allowed_keys(query, valid[example], positions, causal)
            if valid_queries[example][query] and keys:
                yield example, query, keys


# rollout


def rollout(attention, *, residual, head_fusion, normalise, discard, start_layer, valid):
    layers, batch, heads, tokens, _ = attention.shape
    result = np.full((layers - start_layer, batch, tokens, tokens), NAN)
    fuse = {"mean": mean, "max": max, "min": min}[head_fusion]
    for example in range(batch):
        kept = [token for token in range(tokens) if valid[example][token]]
        before = None
        for layer in range(start_layer, layers):
            maps = attention[layer, example]
            fused = [[fuse([float(maps[h, i, j]) for h in range(heads)]) for j in kept] for i in kept]
            fused = discard_smallest(fused, discard)
            mixed = mix(fused, residual, normalise)
            before = mixed if before is None else multiply(mixed, before)
            for a, i in enumerate(kept):
                for b, j in enumerate(kept):
                    result[layer - start_layer, example, i, j] = before[a][b]
    return result


def discard_smallest(fused, share):
    size = len(fused)
    cells = sorted((fused[i][j], i * size + j) for i in range(size) for j in range(size))
    for _, place in cells[: int(size * size * share)]:
        if place != 0:
            fused[place // size][place % size] = 0.0
    return fused


def mix(fused, residual, normalise):
    mixed = []
    for i, row in enumerate(fused):
        total = math.fsum(row)
        if total == 0:  # the residual alone, or nothing
            mixed.append([NAN if residual == 0 else float(i == j) for j in range(len(row))])
            continue
        shares = [a / total for a in row] if normalise == "before" else row
        sums = 1 if normalise == "before" else (1 - residual) * total + residual
        mixed.append([((1 - residual) * a + (residual if i == j else 0)) / sums for j, a in enumerate(shares)])
    return mixed


def multiply(left, right):
    """What has no weight takes nothing, not even of a row that is undefined."""
    taken = [[k for k, weight in enumerate(row) if weight != 0] for row in left]
    return [
        [math.fsum(left[i][k] * right[k][j] for k in taken[i]) for j in range(len(right))] for i in range(len(left))
    ]


# statistics


def head_statistics(attention, valid, valid_queries, positions, causal):
    layers, batch, heads, _, length = attention.shape
    rows = list(real_rows(batch, valid, valid_queries, positions, causal))
    result = {}
    for layer, head in itertools.product(range(layers), range(heads)):
        values = collections.defaultdict(list)
        seen = set()
        for example, query, keys in rows:
            row = [float(a) for a in attention[layer, example, head, query]]
            place = positions[query]
            first = min(key for key in range(length) if valid[example][key])
            nats = entropy([row[key] for key in keys])
            values["entropy"].append(nats)
            values["effective_span"].append(math.exp(nats))
            values["confidence"].append(max(row[key] for key in keys))
            values["first_token"].append(row[first])
            if len(keys) > 1:
                values["normalised_entropy"].append(nats / math.log(len(keys)))
            if example in seen:
                values["first_token_after_first_row"].append(row[first])
            seen.add(example)
            if place < 0:
                continue
            values["distance"].append(math.fsum(row[key] * abs(place - key) for key in keys))
            values["self_token"].append(row[place])
            if place >= 1 and valid[example][place - 1]:
                values["previous_token"].append(row[place - 1])
                best = max(row[key] for key in keys)
                winner = next(key for key in keys if row[key] == best)
                values["previous_token_argmax"].append(float(winner == place - 1))
            if place + 1 < length and valid[example][place + 1] and not causal:
                values["next_token"].append(row[place + 1])
        for name in (
            "entropy",
            "normalised_entropy",
            "effective_span",
            "distance",
            "previous_token",
            "next_token",
            "self_token",
            "first_token",
            "first_token_after_first_row",
            "confidence",
            "previous_token_argmax",
        ):
            result.setdefault(name, np.full((layers, heads), NAN))[layer, head] = mean(values[name])
    return result


# similarity


def head_similarity(attention, method, valid, valid_queries, positions, causal, allowed_only, centred):
    layers, batch, heads, _, length = attention.shape
    rows = list(real_rows(batch, valid, valid_queries, positions, causal))
    flat = []
    for layer, head in itertools.product(range(layers), range(heads)):
        taken = []
        for example, query, allowed in rows:
            keys = allowed if allowed_only else [key for key in range(length) if valid[example][key]]
            row = [float(attention[layer, example, head, query, key]) for key in keys]
            if centred:
                row = [a - (1 / len(allowed) if key in allowed else 0) for a, key in zip(row, keys, strict=True)]
            if method == "js_clark":
                real = sum(bool(v) for v in valid[example])
                row = [0.999 * a + 0.001 / real for a in row]
            taken.append(row)
        flat.append(taken)
    result = np.full((len(flat), len(flat)), NAN)
    for a, b in itertools.product(range(len(flat)), repeat=2):
        result[a, b] = compare(flat[a], flat[b], method)
    return result


def compare(first, second, method):
    pairs = list(zip(first, second, strict=True))
    if method in ("pearson", "spearman", "cosine"):
        x, y = [list(itertools.chain.from_iterable(rows)) for rows in (first, second)]
        if method == "spearman":
            x, y = average_ranks(x), average_ranks(y)
        return cosine(x, y) if method == "cosine" else cosine(deviations(x), deviations(y))
    if method == "js":
        return mean(jensen_shannon(p, q) for p, q in pairs)
    if method == "js_clark":
        return math.fsum(jensen_shannon(p, q) for p, q in pairs) if pairs else NAN
    if method == "hellinger":
        return mean(sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in zip(p, q, strict=True)) / 2 for p, q in pairs)
    return mean(math.fsum(jeffreys_term(a, b) for a, b in zip(p, q, strict=True)) for p, q in pairs)


def jeffreys_term(a, b):
    if a == b:
        return 0.0
    return (a - b) * math.log(a / b) if a > 0 and b > 0 else math.inf


def deviations(values):
    middle = mean(values)
    return [value - middle for value in values]


def cosine(x, y):
    lengths = [math.sqrt(math.fsum(v * v for v in values)) for values in (x, y)]
    if min(lengths) < 1e-12:
        return NAN
    return math.fsum(a * b for a, b in zip(x, y, strict=True)) / (lengths[0] * lengths[1])


def average_ranks(values):
    return [1 + sum(other < v for other in values) + (sum(other == v for other in values) - 1) / 2 for v in values]


# sinks


def sink_mass(attention, position, valid, valid_queries, positions, first_row):
    layers, batch, heads, queries, length = attention.shape
    result = np.full((layers, batch, heads), NAN)
    for layer, example, head in itertools.product(range(layers), range(batch), range(heads)):
        real = [key for key in range(length) if valid[example][key]]
        if position >= len(real):
            continue
        sink = real[position]
        column = []
        for query in range(queries):
            if valid_queries[example][query] and (positions[query] < 0 or positions[query] >= sink):
                column.append(float(attention[layer, example, head, query, sink]))
        result[layer, example, head] = mean(column if first_row else column[1:])
    return result


def sink_fraction(mass, threshold):
    layers, batch, heads = mass.shape
    result = []
    for example in range(batch):
        values = [mass[layer, example, head] for layer in range(layers) for head in range(heads)]
        result.append(NAN if any(map(math.isnan, values)) else mean(float(v > threshold) for v in values))
    return np.array(result)


# induction


def earlier_copies(tokens, valid, query):
    if not valid[query]:
        return []
    return [key for key in range(query) if valid[key] and tokens[key] == tokens[query]]


def copies_score(attention, tokens, valid, *, shift, choose):
    """Σ of A[i, j + shift] over the chosen copies j of i; NaN without any."""
    result = np.full(attention.shape[:-1], NAN)
    for layer, example, head, query in np.ndindex(*attention.shape[:-1]):
        chosen = choose(query, earlier_copies(tokens[example], valid[example], query))
        if chosen:
            result[layer, example, head, query] = sum(attention[layer, example, head, query, j + shift] for j in chosen)
    return result


def induction_score(attention, tokens, valid, definition, period):
    choices = {
        "all_copies": lambda query, copies: copies,
        "stripe": lambda query, copies: [j for j in copies if query - j == period] if period else copies[-1:],
    }
    if definition != "mul":
        return copies_score(attention, tokens, valid, shift=1, choose=choices[definition])
    result = np.full(attention.shape[:3], NAN)
    for layer, example, head in np.ndindex(*attention.shape[:3]):
        weights = attention[layer, example, head]
        length = len(weights)
        cells = [(i, j + 1) for i in range(length) for j in earlier_copies(tokens[example], valid[example], i)]
        real = [i for i in range(length) if valid[example][i]]
        if cells:
            result[layer, example, head] = sum(weights[c] for c in cells) / sum(
                weights[i, j] for i in real for j in real
            )
    return result


def duplicate_token_score(attention, tokens, valid):
    return copies_score(attention, tokens, valid, shift=0, choose=lambda query, copies: copies)


# evolution


def evolution(steps, prompt_length):
    """prompt_length None: cross-attention, whose keys know neither prompt nor own place."""
    result = {}
    for place in np.ndindex(*steps[0].shape[:3]):
        before = None
        for step, maps in enumerate(steps):
            row = [float(a) for a in maps[place][-1]]
            values = spread_of_row(row) | {"drift": NAN, "uniform_drift": NAN}
            if prompt_length is not None:
                values |= places_of_row(row, prompt_length)
            if before is not None:
                size = max(len(before), len(row))
                values["drift"] = jensen_shannon(*(r + [0.0] * (size - len(r)) for r in (before, row)))
                values["uniform_drift"] = growth(len(before), len(row))
            before = row
            for name, value in values.items():
                result.setdefault(name, np.full((len(steps), *steps[0].shape[:3]), NAN))[(step, *place)] = value
    return result


def spread_of_row(row):
    return {
        "first_token": row[0],
        "entropy": entropy(row),
        "normalised_entropy": entropy(row) / math.log(len(row)) if len(row) > 1 else NAN,
        "effective_span": math.exp(entropy(row)),
        "confidence": max(row),
        "argmax": row.index(max(row)),
    }


def places_of_row(row, prompt_length):
    prompt, generated = mean(row[:prompt_length]), mean(row[prompt_length:])
    alone = len(row) == 1
    return {
        "lookback_ratio": prompt / (prompt + generated),
        "prompt_mass": math.fsum(row[:prompt_length]),
        "generated_mass": math.fsum(row[prompt_length:]),
        "self_token": row[-1],
        "previous_token": NAN if alone else row[-2],
        "previous_token_argmax": NAN if alone else float(row.index(max(row)) == len(row) - 2),
        "distance": math.fsum(a * (len(row) - 1 - key) for key, a in enumerate(row)),
    }


def growth(few, many):
    """Jensen–Shannon divergence of the uniform distributions over the first `few` and the first `many` of some keys,
    written out: few keys hold (1/few + 1/many)/2, the others 1/(2·many)."""
    few, many = sorted((few, many))
    shared, rest = (1 / few + 1 / many) / 2, 1 / (2 * many)
    middle = -few * shared * math.log(shared) - (many - few) * rest * math.log(rest)
    return middle - (math.log(few) + math.log(many)) / 2


# alignment


def dtw_whisper(cost):
    """The table of totals filled column by column, then walked back, ties as Whisper settles them."""
    rows, columns = len(cost), len(cost[0])
    totals = {(-1, -1): 0.0}
    came = {}
    for j in range(columns):
        for i in range(rows):
            options = [totals.get(cell, math.inf) for cell in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
            if options[0] < min(options[1:]):
                move = 0
            elif options[1] < min(options[0], options[2]):
                move = 1
            else:
                move = 2
            totals[i, j] = cost[i][j] + options[move]
            came[i, j] = [(i - 1, j - 1), (i - 1, j), (i, j - 1)][move]
    cell, path = (rows - 1, columns - 1), []
    while cell != (-1, -1):
        path.insert(0, cell)
        cell = came[cell]
    return path, totals[rows - 1, columns - 1]


def cheapest_path(cost):
    """The least total over every monotonic path, each one walked."""

    def walk(i, j):
        if (i, j) == (len(cost) - 1, len(cost[0]) - 1):
            return cost[i][j]
        steps = [(i + 1, j + 1), (i + 1, j), (i, j + 1)]
        return cost[i][j] + min(walk(a, b) for a, b in steps if a < len(cost) and b < len(cost[0]))

    return walk(0, 0)


def monotonicity(positions):
    steps = [float(b >= a) for a, b in itertools.pairwise(positions)]
    signs = [(b > a) - (b < a) for a, b in itertools.combinations(positions, 2)]
    return {"fraction": mean(steps), "kendall_tau": mean(signs)}
