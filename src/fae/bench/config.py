"""The options of ``fae bench paper``. Imports no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fae.bench.workloads import WORKLOADS
from fae.core.config import check_fields, nearest
from fae.core.errors import RecipeError
from fae.core.units import parse_bytes
from fae.distributed.places import RANK_COUNTS, check_gpus

CONTENDERS = ("plain cpu", "plain hybrid", "cpu", "hybrid", "paper", "tiered", "tiered shuffled", "device")
"""Names of the contenders, in the order of the table."""
LARGE_BATCH = 32768


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure: one workload, its log, its contenders.

    Attributes
    ----------
    workload
        ``rmc1``, ``rmc2`` or ``rmc3``.
    num_inputs
        Inputs of the synthetic log; 0 takes the workload's own number.
    scale
        Rows of the large tables, as a share of those of the real log.
    log
        A columnar log (folder of the artifact) with the workload's columns, in place of a synthetic one.
    budget
        GPU memory of the hot set; empty: the recipe's budget times the share of all rows that the log touches, plus
        staging.
    selection
        How the hot set of `tiered` is chosen. That of `paper` is the threshold's; with the same for both, nothing but
        the system differs.
    batch_sizes
        Batch sizes, one table each; empty: the paper's and 32,768.
    contenders
        Some of `CONTENDERS`.
    rounds
        Samples of every contender, taken in turns.
    sample_seconds, min_batches
        Least length of a sample: both are reached.
    accuracy
        Train an epoch to its end in the orders shuffled, adaptive and interleaved: at the first batch size
        (``"first"``), at all, or not at all.
    precision
        Precision of the dense part; on a CPU ``bf16`` takes the faster of both.
    no_compile
        Leave `torch.compile` out where the workload's recipe has it.
    seed
        Seed of everything random.
    until_seconds
        Begin no cell after that many seconds; 0: no limit.
    gpus
        N: measure also on 2, 4 and so on up to N GPUs, which are processes where the device is the CPU.
    prepare_only
        Make the log, hot sets and packed batches that the same command would need, and measure nothing.
    """

    workload: str
    num_inputs: int = 0
    scale: float = 1.0
    log: str = ""
    budget: str = ""
    selection: Literal["threshold", "peeling", "auto"] = "threshold"
    batch_sizes: tuple[int, ...] = ()
    contenders: tuple[str, ...] = CONTENDERS
    rounds: int = 3
    sample_seconds: float = 1.0
    min_batches: int = 3
    accuracy: Literal["first", "all", "none"] = "first"
    precision: Literal["bf16", "fp32"] = "bf16"
    no_compile: bool = False
    seed: int = 1
    until_seconds: float = 0.0
    gpus: int = 1
    prepare_only: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "bench")
        if self.workload not in WORKLOADS:
            raise RecipeError(
                f"there is no workload {self.workload!r}; it is one of {', '.join(WORKLOADS)}, see "
                "`fae bench paper --help`"
            )
        for name in self.contenders:
            if name not in CONTENDERS:
                raise RecipeError(f"there is no contender {name!r}; {nearest(name, CONTENDERS)}")
        if not self.contenders:
            raise RecipeError(f"--contenders names none; choose from {', '.join(CONTENDERS)}")
        if self.num_inputs < 0 or 0 < self.num_inputs < 100:
            raise RecipeError(f"--inputs {self.num_inputs} must be 100 or more (0: the workload's own)")
        if not 0 < self.scale <= 4:
            raise RecipeError(f"--scale {self.scale} must be more than 0 and at most 4")
        for size in self.batch_sizes:
            if not 1 <= size <= 2**20:
                raise RecipeError(f"--batch-sizes {size} must be from 1 to {2**20}")
        least = {"--rounds": self.rounds, "--min-batches": self.min_batches}
        for option, value in least.items():
            if value < 1:
                raise RecipeError(f"{option} {value} must be 1 or more")
        check_gpus(self.gpus)
        if not self.sample_seconds >= 0 or not self.until_seconds >= 0:
            raise RecipeError("--seconds and --until must be 0 or more")
        if self.budget:
            parse_bytes(self.budget, what="--budget")

    def sizes(self) -> tuple[int, ...]:
        """Batch sizes, the paper's first."""
        own = int(WORKLOADS[self.workload].train["batch_size"])
        return self.batch_sizes or (own, LARGE_BATCH)

    def rank_counts(self) -> tuple[int, ...]:
        """Numbers of GPUs beside one: powers of two up to `gpus`."""
        return tuple(count for count in RANK_COUNTS[1:] if count <= self.gpus)

    def compiled(self) -> bool:
        """Whether dense parts run through `torch.compile` (on a GPU)."""
        return self.recipe_compiles() and not self.no_compile

    def recipe_compiles(self) -> bool:
        """Whether the workload's recipe compiles the dense part."""
        return bool(WORKLOADS[self.workload].train.get("compile"))
