"""The recipe's ``[hot]`` table: which rows are kept on the GPU; read by profile and calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fae.core.config import check_fields
from fae.core.errors import RecipeError
from fae.core.units import parse_bytes


@dataclass(frozen=True, kw_only=True)
class HotConfig:
    """Which rows are kept on the GPU.

    Attributes
    ----------
    budget
        GPU memory per device for rows with their optimizer state and for the staging ring: the one dial.
    sample
        Share of the training inputs that the profile reads (the paper: 0.05); 1 reads all.
    sample_min_inputs
        The sample is never smaller than this many inputs: 5 % of a small log says too little, and reading is cheap.
    selection
        ``threshold`` is the paper's; ``peeling`` maximises hot inputs; ``auto`` takes the better one on inputs that
        neither was fitted to (on the whole training log where all of it was read).
    ring_depth
        Staging slots k: batches whose cold rows may be in flight at once, 2 to 8. Fewer leave bytes for hot rows, more
        let the host run further ahead (a step of 2,048 inputs takes 152 us with four and 117 with eight on an H100).
        ``auto`` takes the deepest ring that leaves half of the budget to the hot rows, and two slots where none does.
    small_table
        Tables up to this size are hot as a whole (the paper: 1 MB), as far as the budget allows.
    max_threshold, min_threshold
        Ends of the logarithmic grid of access thresholds (shares of a table's accesses; the paper: 1e-3, 1e-7).
    peeling_passes
        Passes of the peeling; more bring it closer to its bound.
    rand_em_chunks, rand_em_chunk_rows, confidence
        Rand-Em Box: chunks drawn, rows of a chunk; confidence of every interval (the paper: 35, 1024, 0.999).
    """

    budget: str | int = "512MiB"
    sample: float = 0.05
    sample_min_inputs: int = 200_000
    selection: Literal["auto", "threshold", "peeling"] = "auto"
    ring_depth: Literal["auto"] | int = "auto"
    small_table: str | int = "1MB"
    max_threshold: float = 1e-3
    min_threshold: float = 1e-7
    peeling_passes: int = 3
    rand_em_chunks: int = 35
    rand_em_chunk_rows: int = 1024
    confidence: float = 0.999

    def __post_init__(self) -> None:
        check_fields(self, "[hot]")
        parse_bytes(self.budget, what="[hot] budget")
        parse_bytes(self.small_table, what="[hot] small_table")
        if not 0 < self.sample <= 1:
            raise RecipeError(f"[hot] sample = {self.sample} must be more than 0 and at most 1")
        if self.ring_depth != "auto" and not 2 <= self.ring_depth <= 8:
            raise RecipeError(f'[hot] ring_depth = {self.ring_depth} must be from 2 to 8, or "auto"')
        if not 0 < self.min_threshold <= self.max_threshold <= 1:
            raise RecipeError(
                f"[hot] thresholds {self.min_threshold} .. {self.max_threshold} must be 0 < min <= max <= 1"
            )
        if self.rand_em_chunks < 2 or self.rand_em_chunk_rows < 1 or self.peeling_passes < 1:
            raise RecipeError("[hot] needs rand_em_chunks >= 2, rand_em_chunk_rows >= 1 and peeling_passes >= 1")
        for name, most in (("rand_em_chunks", 10**6), ("rand_em_chunk_rows", 10**6), ("peeling_passes", 1000)):
            if getattr(self, name) > most:
                raise RecipeError(f"[hot] {name} = {getattr(self, name)} must be at most {most:,}")
        if self.sample_min_inputs < 0:
            raise RecipeError(f"[hot] sample_min_inputs = {self.sample_min_inputs} must be 0 or more")
        if not 0.5 <= self.confidence < 1:
            raise RecipeError(f"[hot] confidence = {self.confidence} must be at least 0.5 and less than 1")

    @property
    def ring_depths(self) -> tuple[int, ...]:
        """Depths of the staging ring that may be used, the deepest first."""
        return tuple(range(8, 1, -1)) if self.ring_depth == "auto" else (self.ring_depth,)

    @property
    def budget_bytes(self) -> int:
        """The budget in bytes."""
        return parse_bytes(self.budget, what="[hot] budget")

    @property
    def small_table_bytes(self) -> int:
        """The small-table limit in bytes."""
        return parse_bytes(self.small_table, what="[hot] small_table")
