"""Kobayashi's norms and Ferrando's contributions once more, in plain loops over Python floats: every vector is made."""

import math

NAN = float("nan")


def matrix(vector, weights, bias):
    width = len(weights[0])
    return [math.fsum(v * row[c] for v, row in zip(vector, weights, strict=True)) + bias[c] for c in range(width)]


def add(*vectors):
    return [math.fsum(numbers) for numbers in zip(*vectors, strict=True)]


def times(number, vector):
    return [number * x for x in vector]


def length(vector):
    return math.sqrt(math.fsum(x * x for x in vector))


def manhattan(vector):
    return math.fsum(abs(x) for x in vector)


def statistics(vector, eps, rms):
    """What is subtracted from the vector, and by what it is divided."""
    middle = 0.0 if rms else math.fsum(vector) / len(vector)
    return middle, math.sqrt(math.fsum((x - middle) ** 2 for x in vector) / len(vector) + eps)


def normed(vector, scale, weight, rms):
    """A part of a vector whose statistics gave the scale: minus its own mean, over the scale, times the weight."""
    middle = 0.0 if rms else math.fsum(vector) / len(vector)
    return [(x - middle) / scale * g for x, g in zip(vector, weight, strict=True)]


def projected(hidden, w_v, b_v, w_o, heads):
    """f_h(x_j) as nested lists [head][key][width]."""
    size, group_count = len(w_o) // heads, len(w_v[0]) // (len(w_o) // heads)
    group = heads // group_count
    found = []
    for head in range(heads):
        rows = []
        for vector in hidden:
            value = matrix(vector, w_v, b_v)[(head // group) * size : (head // group + 1) * size]
            rows.append(matrix(value, w_o[head * size : (head + 1) * size], [0.0] * len(w_o[0])))
        found.append(rows)
    return found


def layer(attention, hidden, w_v, b_v, w_o, *, b_o=None, residual=None, inner=None, layer_norm=None, rms=False,
          positions=None):  # fmt: skip
    """One example: attention [head][query][key]; gives the norms by name, and ALTI's shares."""
    heads, queries, keys = len(attention), len(attention[0]), len(attention[0][0])
    width = len(w_o[0])
    nothing = [0.0] * width
    positions = list(range(queries)) if positions is None else positions
    moved = projected(hidden, w_v, b_v or [0.0] * len(w_v[0]), w_o, heads)
    value = [[length(moved[h][j]) for j in range(keys)] for h in range(heads)]
    weighted = [
        [[length(times(attention[h][i][j], moved[h][j])) for j in range(keys)] for i in range(queries)]
        for h in range(heads)
    ]
    found = {"value": value, "weighted": weighted, "output": []}
    alti = []
    for i in range(queries):
        parts = [add(*(times(attention[h][i][j], moved[h][j]) for h in range(heads))) for j in range(keys)]
        own = nothing
        stages = [("summed", "mixing", parts, own)]
        stream = add(*parts, b_o or nothing)
        if inner is not None:
            weight, bias, eps = inner
            middle, scale = statistics(stream, eps, rms)
            parts = [normed(part, scale, weight, rms) for part in parts]
            stream = [(x - middle) / scale * g for x, g in zip(stream, weight, strict=True)]
            stream = add(stream, bias or nothing)
        if residual is not None:
            parts, own = with_own(parts, positions[i], residual[i], nothing)
            stages.append(("with_residual", "mixing_with_residual", parts, own))
            stream = add(stream, residual[i])
        if layer_norm is not None:
            weight, bias, eps = layer_norm
            middle, scale = statistics(stream, eps, rms)
            parts, own = [normed(part, scale, weight, rms) for part in parts], normed(own, scale, weight, rms)
            stages.append(("normalised", "mixing_normalised", parts, own))
            stream = [(x - middle) / scale * g for x, g in zip(stream, weight, strict=True)]
            stream = add(stream, bias or nothing)
        for name, mixing, vectors, apart in stages:
            found.setdefault(name, []).append([length(vector) for vector in vectors])
            found.setdefault(mixing, []).append(
                mixed(vectors, apart, positions[i], residual is None or name == "summed")
            )
        found["output"].append(stream)
        gain = [max(0.0, manhattan(stream) - manhattan(minus(stream, part))) for part in parts]
        extra = max(0.0, manhattan(stream) - manhattan(minus(stream, own))) if positions[i] < 0 else 0.0
        total = math.fsum([*gain, extra if residual is not None else 0.0])
        alti.append([g / total if total else NAN for g in gain])
    return found, alti


def with_own(parts, position, residual, nothing):
    """The residual belongs to the query's own key; where it stands on none, it is a part of its own."""
    if position < 0:
        return parts, residual
    return [add(part, residual) if j == position else part for j, part in enumerate(parts)], nothing


def mixed(parts, own, position, alone):
    if position < 0 and alone:
        return NAN
    others = add(*([0.0] * len(own), *(part for j, part in enumerate(parts) if j != position)))
    mine = own if position < 0 else parts[position]
    return length(others) / (length(others) + length(mine))


def minus(vector, other):
    return [x - y for x, y in zip(vector, other, strict=True)]
