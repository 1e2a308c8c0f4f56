"""What is done to the numbers of each dense column: clip, then transform, with constants that are known or not yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.ingest.column_config import DenseConfig
from fae.ingest.config import LogConfig

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DenseRule:
    """What is done to the numbers of one column.

    Attributes
    ----------
    transform
        As ``[log] dense_transform``.
    low, high
        Ends of the clip; None where there is none, or `quantiles` will say it.
    quantiles
        Shares whose quantiles in the training split are the ends; None where they are known or none.
    mean, deviation
        Of ``standardize``; None until they are known.
    """

    name: str
    transform: str
    low: float | None = None
    high: float | None = None
    quantiles: tuple[float, float] | None = None
    mean: float | None = None
    deviation: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether every constant is known."""
        return self.quantiles is None and (self.transform != "standardize" or self.mean is not None)

    @property
    def has_constants(self) -> bool:
        """Whether there are any constants."""
        ends = (self.low, self.high, self.quantiles)
        return self.transform == "standardize" or any(end is not None for end in ends)

    def clip(self, values: Numbers) -> Numbers:
        """Numbers within the ends that are known."""
        if self.low is not None:
            values = np.maximum(values, self.low)
        return values if self.high is None else np.minimum(values, self.high)

    def apply(self, values: Numbers) -> Numbers:
        """Clip and transform numbers; the constants must be known."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.clip(values)
            if self.transform == "log1p":
                return np.log1p(np.maximum(values, 0.0))
            if self.transform == "signed_log1p":
                return np.copysign(np.log1p(np.abs(values)), values)
            if self.transform == "standardize":
                assert self.mean is not None
                assert self.deviation is not None
                return (values - self.mean) / self.deviation
        return values

    def to_summary(self) -> dict[str, Any]:
        """Its entry in ``dense_constants`` of the summary of a log."""
        ends: dict[str, Any] = {"transform": self.transform, "low": self.low, "high": self.high}
        more = {"mean": self.mean, "deviation": self.deviation} if self.transform == "standardize" else {}
        return ends | more


def dense_rules(config: LogConfig, known: Mapping[str, Mapping[str, Any]] | None = None) -> list[DenseRule]:
    """The rule of each dense column.

    Parameters
    ----------
    known
        ``dense_constants`` of the log that this one continues, or whose run scores files; where it has them, all
        constants are known.
    """
    return [
        _known_rule(column.name, known[column.name]) if known and column.name in known else _new_rule(config, column)
        for column in config.dense_settings()
    ]


def _known_rule(name: str, facts: Mapping[str, Any]) -> DenseRule:
    return DenseRule(
        name=name, transform=facts["transform"], low=facts.get("low"), high=facts.get("high"), mean=facts.get("mean"),
        deviation=facts.get("deviation"),
    )  # fmt: skip


def _new_rule(config: LogConfig, column: DenseConfig) -> DenseRule:
    clip, quantiles = column.clip, column.clip_quantiles
    if clip is None and quantiles is None:
        clip, quantiles = config.dense_clip, config.dense_clip_quantiles
    low, high = (None, None) if clip is None else (clip[0], clip[1])
    return DenseRule(
        name=column.name, transform=column.transform or config.dense_transform, low=low, high=high,
        quantiles=None if quantiles is None else (quantiles[0], quantiles[1]),
    )  # fmt: skip


def constants_summary(rules: Sequence[DenseRule]) -> dict[str, Any]:
    """``dense_constants`` of the summary of a log; nothing where no column has any."""
    if not any(rule.has_constants for rule in rules):
        return {}
    return {"dense_constants": {rule.name: rule.to_summary() for rule in rules}}
