"""The configuration of a synthetic log, for the generators and the command line. Imports no library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from fae.core.config import check_fields
from fae.core.errors import RecipeError

ShapeName = Literal["criteo", "terabyte", "avazu", "taobao", "zipf"]
SHAPES: tuple[str, ...] = get_args(ShapeName)
CRITEO_FORMAT = ("criteo", "terabyte", "zipf")
"""Shapes whose text is Criteo's TSV; the others are CSV."""
_LARGEST_TABLE = 10_131_227, 39_979_771  # rows, of Criteo Kaggle and of the Terabyte log


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the synthetic log is like.

    Attributes
    ----------
    shape
        ``criteo`` (26 ids, 13 counts), ``terabyte`` (the same, with the larger log's tables), ``avazu`` (22 ids),
        ``taobao`` (a user, 20 items of history and a candidate, their categories) or ``zipf`` (Criteo's tables with
        independent columns).
    num_inputs
        Inputs of the whole log.
    scale
        Rows of the large tables, as a share of the public log's (1 is 33.8 M rows for ``criteo``); small tables keep
        their size.
    num_days
        The log is cut into this many days of equal length, over which values of the large columns are replaced.
    drift
        Share of those values that are replaced by new ones every day.
    click_rate
        Share of the inputs that are clicked.
    label_gap
        How much the log-odds of a click follow popularity, as a standard deviation. Above 0, inputs of popular users
        and items are clicked more often; below 0, less often; 0, no dependence. Pack reports the resulting gap between
        hot and cold inputs (``label_rate``). Only for shapes of plain columns.
    """

    shape: ShapeName = "criteo"
    num_inputs: int = 200_000
    scale: float = 0.01
    num_days: int = 7
    drift: float = 0.005
    click_rate: float = 0.25
    label_gap: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "synthetic")
        if self.shape not in SHAPES:
            raise RecipeError(f"synthetic shape = {self.shape!r} must be one of {', '.join(SHAPES)}")
        if self.num_inputs < 1:
            raise RecipeError(f"synthetic num_inputs = {self.num_inputs} must be 1 or more")
        if not 0 < self.scale <= 4:
            raise RecipeError(f"synthetic scale = {self.scale} must be more than 0 and at most 4")
        if not 1 <= self.num_days <= 100:
            raise RecipeError(f"synthetic num_days = {self.num_days} must be from 1 to 100")
        if not 0 <= self.drift < 1:
            raise RecipeError(f"synthetic drift = {self.drift} must be at least 0 and less than 1")
        if not 0 < self.click_rate < 1:
            raise RecipeError(f"synthetic click_rate = {self.click_rate} must be more than 0 and less than 1")
        if not -10 <= self.label_gap <= 10:
            raise RecipeError(f"synthetic label_gap = {self.label_gap} must be from -10 to 10")
        if self.label_gap and self.shape == "taobao":
            raise RecipeError("synthetic label_gap is for shapes of plain columns; taobao's clicks do not follow it")
        if self.seed < 0:
            raise RecipeError(f"synthetic seed = {self.seed} must be 0 or more")
        # Ids are int32, and every value exists once for every generation of drift.
        largest = _LARGEST_TABLE[self.shape == "terabyte"]
        if self.scale * self.num_generations * largest > 2_030_000_000:
            raise RecipeError(
                f"synthetic scale = {self.scale} with drift = {self.drift} over {self.num_days} days makes more values "
                "than 32 bits number; lower one of them"
            )

    @property
    def num_generations(self) -> int:
        """Most different values that one value has been by the last day, because of drift."""
        return 1 + math.ceil((self.num_days - 1) * self.drift)
