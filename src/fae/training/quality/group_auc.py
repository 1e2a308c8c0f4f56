"""Group AUC: how well inputs are ranked within each value of a column, such as the inputs of one user.

Defined as GAUC in Zhu et al., "Optimized Cost per Click in Taobao Display Advertising" (KDD 2017), and used in Zhou et
al., "Deep Interest Network for Click-Through Rate Prediction" (KDD 2018): the mean of the groups' AUCs, weighted by
their numbers of inputs. A group whose labels are all equal has no AUC and is left out of both sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fae.training.quality.score_order import tie_groups


def measure_group_auc(
    labels: npt.NDArray[np.floating[Any]],
    logits: npt.NDArray[np.floating[Any]],
    groups: npt.NDArray[np.int32],
    *,
    column: str,
    unknown_id: int,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> dict[str, Any]:
    """The object ``group_auc`` of a split in the run record (docs/reference/run_record.md).

    Parameters
    ----------
    labels, logits
        Floats ``[n]``.
    groups
        Id of each input's value, int32 ``[n]``; those of `unknown_id`, and below 0, are left out and counted.
    column
        Name of the column.
    unknown_id
        Its reserved id; -1 where it has none.
    weights
        Weights of the inputs, 0 or more; None is 1 each. One of weight 0 is not there.
    """
    counted = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    known = (groups >= 0) & (groups != unknown_id) & (counted > 0)
    unknown = int(np.count_nonzero(((groups < 0) | (groups == unknown_id)) & (counted > 0)))
    labels, counted, group = labels[known].astype(np.float64), counted[known], groups[known]
    ties = tie_groups(logits[known])  # of the whole split: rounding does not depend on the group
    _, group = np.unique(group, return_inverse=True)
    order = np.lexsort((ties, group))
    group, ties = group[order], ties[order]
    positive, negative = (counted * labels)[order], (counted * (1.0 - labels))[order]
    num_groups = int(group[-1]) + 1 if len(group) else 0
    totals = [np.bincount(group, each, num_groups) for each in (positive, negative)]

    # A pair's 1 wins against every 0 of its group in a lower tie, and half against those of its own tie.
    first_of_tie = np.ones(len(group), bool)
    first_of_tie[1:] = (np.diff(group) != 0) | (np.diff(ties) != 0)
    tie = np.cumsum(first_of_tie) - 1
    group_of_tie = group[first_of_tie]
    tie_positive, tie_negative = np.bincount(tie, positive), np.bincount(tie, negative)
    before = np.cumsum(tie_negative) - tie_negative
    first_in_group = np.searchsorted(group_of_tie, np.arange(num_groups))
    below = before - before[first_in_group][group_of_tie] if num_groups else before
    won = np.bincount(group_of_tie, tie_positive * (below + tie_negative / 2), num_groups)

    pairs = totals[0] * totals[1]
    both = pairs > 0
    sizes, inputs = totals[0] + totals[1], np.bincount(group, minlength=num_groups)
    weight = float(sizes[both].sum())
    return {
        "column": column,
        "auc": float(np.dot(sizes[both], won[both] / pairs[both])) / weight if weight else None,
        "num_groups": int(both.sum()),
        "num_inputs": int(inputs[both].sum()),
        "one_class_groups": int(num_groups - both.sum()),
        "one_class_inputs": int(inputs[~both].sum()),
        "unknown_inputs": unknown,
    }
