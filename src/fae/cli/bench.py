"""``fae bench paper``: the paper's table, measured here."""

from __future__ import annotations

import argparse
from typing import Any

from fae.bench.help_text import PAPER
from fae.cli.options import add_output_options


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bench", help="the paper's evaluation, measured on this machine",
        description="Measure the paper's evaluation on this machine.",
    )  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    paper = kinds.add_parser(
        "paper", help="one workload over all placements: the paper's table", description=PAPER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    paper.add_argument("workload", metavar="WORKLOAD", help="rmc1, rmc2 or rmc3")
    paper.add_argument("--out", metavar="DIR", help="folder (default: runs/bench_<workload>)")
    paper.add_argument("--inputs", metavar="N", type=int, default=0, help="of the synthetic log (default: 4 to 8 M)")
    paper.add_argument("--scale", metavar="S", type=float, default=1.0,
                       help="rows of the large tables, 1 for the published numbers (default: 1)")  # fmt: skip
    paper.add_argument("--log", metavar="DIR", default="", help="a columnar log instead of a synthetic one")
    paper.add_argument("--budget", metavar="SIZE", default="", help="GPU memory for the hot set (default: see above)")
    paper.add_argument("--selection", choices=("threshold", "peeling", "auto"), default="threshold",
                       help="of the hot set of tiered (default: threshold, the paper's)")  # fmt: skip
    paper.add_argument("--batch-sizes", metavar="B,B", default="", help="default: the paper's and 32768")
    paper.add_argument("--contenders", metavar="NAME,NAME", default="", help="some of them (default: all)")
    paper.add_argument("--rounds", metavar="N", type=int, default=3, help="samples of each (default: 3)")
    paper.add_argument("--seconds", metavar="S", type=float, default=1.0, help="of a sample, at least (default: 1)")
    paper.add_argument("--min-batches", metavar="N", type=int, default=3, help="of a sample (default: 3)")
    paper.add_argument("--accuracy", choices=("first", "all", "none"), default="first",
                       help="epochs to the end: at the first batch size, at all, none (default: first)")  # fmt: skip
    paper.add_argument("--precision", choices=("bf16", "fp32"), default="bf16",
                       help="of the dense part; on a CPU the faster, if that is allowed (default: bf16)")  # fmt: skip
    paper.add_argument("--no-compile", action="store_true",
                       help="leave torch.compile out where the recipe has it (rmc1, on a GPU)")  # fmt: skip
    paper.add_argument("--until", metavar="S", type=float, default=0.0, help="start no cell after that many seconds")
    paper.add_argument("--prepare", action="store_true",
                       help="make the log and the packed batches, and measure nothing")  # fmt: skip
    paper.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    paper.add_argument("--gpus", metavar="N", type=int, default=1,
                       help="also on 2, 4 and 8 GPUs up to N of these, or with --device cpu processes")  # fmt: skip
    paper.add_argument("--seed", type=int, default=1, help="of everything (default: 1)")
    add_output_options(paper)
    paper.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Run it."""
    from fae.bench.config import CONTENDERS, BenchConfig
    from fae.core.errors import RecipeError

    try:
        sizes = tuple(int(text) for text in options.batch_sizes.split(",") if text.strip())
    except ValueError:
        raise RecipeError(f"--batch-sizes {options.batch_sizes} must be whole numbers, such as 1024,32768") from None
    config = BenchConfig(
        workload=options.workload, num_inputs=options.inputs, scale=options.scale, log=options.log,
        budget=options.budget, selection=options.selection, batch_sizes=sizes,
        contenders=tuple(name.strip() for name in options.contenders.split(",") if name.strip()) or CONTENDERS,
        rounds=options.rounds, sample_seconds=options.seconds, min_batches=options.min_batches,
        accuracy=options.accuracy, precision=options.precision,
        no_compile=options.no_compile, seed=options.seed, until_seconds=options.until,
        prepare_only=options.prepare, gpus=options.gpus,
    )  # fmt: skip
    from fae.bench.evaluation import run_bench

    out = options.out or f"runs/bench_{options.workload}"
    return run_bench(config, out, device=options.device, words=options.arguments)
