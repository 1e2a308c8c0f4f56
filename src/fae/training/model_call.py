"""Call a model on a batch; a fault inside a model of one's own is told with what the model was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from fae.core.errors import FaeError, TrainingError
from fae.embedding.features import FeatureEmbeddings
from fae.training.real_inputs import module_of

_SHAPE_FAULT = re.compile(r"\b(shapes?|sizes?|dimensions?|dims?|broadcast)\b", re.IGNORECASE)
"""Words of torch's errors about shapes; an error without them, such as one of memory, is left as it is."""
_SHOWN_FEATURES = 8


def call_model(model: Callable[..., Tensor], dense: Tensor, features: Mapping[str, Tensor]) -> Tensor:
    """Logits ``[n]`` of n inputs.

    Parameters
    ----------
    dense
        float32 ``[n, K]``.

    Raises
    ------
    TrainingError
        If shapes do not fit each other in ``forward``, or it does not return a logit an input.
    """
    try:
        output = model(dense, features)
    except FaeError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        if not _SHAPE_FAULT.search(str(error)):
            raise
        reason = str(error).strip().splitlines()[0][:300]
        raise TrainingError(
            f"forward of {type(module_of(model)).__name__} failed: {reason}; it is given {_given(dense, features)}"
        ) from error
    return require_logits(output, len(dense), model)


def _given(dense: Tensor, features: Mapping[str, Tensor]) -> str:
    """What a model's ``forward`` is called with, in words."""
    parts = features.parts() if isinstance(features, FeatureEmbeddings) else None
    shapes = [
        f"{name} {list(features[name].shape if parts is None else parts[0].view(parts[1], name).shape)}"
        for name in list(features)[:_SHOWN_FEATURES]
    ]
    more = f" and {len(features) - len(shapes)} more" if len(features) > len(shapes) else ""
    return f"dense {list(dense.shape)} and embeddings of {', '.join(shapes)}{more}"


def require_logits(output: object, count: int, model: Callable[..., Tensor]) -> Tensor:
    """What a model's ``forward`` returned, if it is a logit for each of `count` inputs.

    Raises
    ------
    TrainingError
        If it is not.
    """
    if isinstance(output, Tensor) and output.shape == (count,):
        if output.is_floating_point():
            return output
        raise TrainingError(
            f"forward of {type(module_of(model)).__name__} returned {str(output.dtype).removeprefix('torch.')}, and "
            "must return logits of a floating type, such as float32"
        )
    found = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise TrainingError(
        f"forward of {type(model).__name__} returned {found} for {count} inputs, and must return logits of shape "
        f"[{count}], one an input"
    )
