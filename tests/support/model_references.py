"""The forward pass of every model, input by input, in numpy and float64: written from the papers, not from our code.

A reference takes the model's configuration, its weights by name (numpy, float64), one input's dense features ``[K]``,
its vectors by feature name (``[D]``, or ``[n, D]``: a sequence without its pads) and the kept length, and returns the
logit.
"""

from __future__ import annotations

import itertools

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def mlp(weights, prefix, x, *, final_relu):
    """Linear layers of an `nn.Sequential` by their numbers, ReLU between them."""
    numbers = sorted({int(name[len(prefix) + 1 :].split(".")[0]) for name in weights if name.startswith(prefix + ".")})
    for number in numbers:
        x = weights[f"{prefix}.{number}.weight"] @ x + weights[f"{prefix}.{number}.bias"]
        if number != numbers[-1] or final_relu:
            x = np.maximum(x, 0)
    return x


def pair_products(vectors):
    """Dot products of vector i with every earlier vector j, i ascending."""
    return [vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i)]


def dlrm(config, weights, dense, vectors, length):
    rows = []
    for index, (name, row) in enumerate(vectors.items()):
        projection = weights.get(f"projections.{index}.weight")
        assert (projection is not None) == (config.embedding_dims.get(name) not in (None, config.embedding_dim))
        rows.append(row if projection is None else projection @ row)
    direct = np.concatenate(rows)
    if len(dense):
        direct = mlp(weights, "bottom", dense, final_relu=True)
        rows = [direct, *rows]
    return mlp(weights, "top", np.concatenate([direct, pair_products(rows)]), final_relu=False)[0]


def tbsm(config, weights, dense, vectors, length):
    used = next(len(v) for v in vectors.values() if v.ndim == 2)
    width = config.top_mlp[-1]
    steps = []
    for step in range(used):
        place = (length - used + step) / length  # the candidate is always at (L - 1) / L
        first = mlp(weights, "bottom", np.concatenate([[place], dense]), final_relu=True)
        rows = [first] + [v if v.ndim == 1 else v[step] for v in vectors.values()]
        z = mlp(weights, "top", np.concatenate([first, pair_products(rows)]), final_relu=True)
        steps.append(z / max(np.linalg.norm(z), 1e-6))
    candidate, history = (steps[-1], steps[:-1]) if used else (np.zeros(width), [])
    if config.inner == "dot":
        products = [z @ candidate for z in history]
    elif config.inner == "indefinite":
        products = [z @ weights["attention.matrix"] @ candidate for z in history]
    else:
        products = [(weights["attention.matrix"] @ z) @ (weights["attention.matrix"] @ candidate) for z in history]
    if config.attention == "mlp":
        seen = np.concatenate([np.zeros(length - 1 - len(history)), products])
        opened = sigmoid(mlp(weights, "attention.mlp", seen, final_relu=False))
        coefficients = opened[length - 1 - len(history) :]
    elif config.attention == "softmax":
        coefficients = np.exp(products) / np.exp(products).sum() if history else []
    else:
        coefficients = products
    context = sum((c * z for c, z in zip(coefficients, history, strict=True)), np.zeros(width))
    return mlp(weights, "final", np.concatenate([context, candidate]), final_relu=False)[0]


def deepfm(config, weights, dense, vectors, length):
    fields, total = [], weights["bias"][0]
    for row in vectors.values():
        if len(row) == 1:
            total += row[0]
        else:
            fields.append((1.0, row[0], row[1:]))
    for value, row in zip(dense, weights.get("dense_rows", []), strict=True):
        fields.append((value, row[0], row[1:]))
    total += sum(x * w for x, w, _ in fields)
    total += sum((v @ u) * x * y for (x, _, v), (y, _, u) in itertools.combinations(fields, 2))
    if not fields:
        return total
    return total + mlp(weights, "deep", np.concatenate([x * v for x, _, v in fields]), final_relu=False)[0]


def dcnv2(config, weights, dense, vectors, length):
    first = np.concatenate([*vectors.values(), dense])
    x = first
    for layer in range(config.cross_layers):
        matrix = weights[f"cross.{layer}.up.weight"]
        if config.cross_rank:
            assert matrix.shape[1] == config.cross_rank
            matrix = matrix @ weights[f"cross.{layer}.down.weight"]
        x = first * (matrix @ x + weights[f"cross.{layer}.up.bias"]) + x
    parallel = config.structure == "parallel"
    deep = mlp(weights, "deep", first if parallel else x, final_relu=True)
    return mlp(weights, "out", np.concatenate([x, deep]) if parallel else deep, final_relu=False)[0]


def wide_deep(config, weights, dense, vectors, length):
    total, deep = weights["bias"][0], []
    for name, row in vectors.items():
        if not config.wide or name in config.wide:
            total, row = total + row[0], row[1:]
        deep.append(row)
    deep = np.concatenate([*deep, dense])
    return total + mlp(weights, "deep", deep, final_relu=False)[0] if len(deep) else total


REFERENCES = {"dlrm": dlrm, "tbsm": tbsm, "deepfm": deepfm, "dcnv2": dcnv2, "wide_deep": wide_deep}
