"""``fae export``: a finished run as a folder that works without FAE."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options

_DESCRIPTION = """\
Write a finished run as a folder that scores raw inputs without FAE: rows, vocabularies, the model by torch.export, a
schema that says how raw values become ids, golden inputs with scores, check.py (verifies the folder, scores files) and
serve.py (answers HTTP). The scripts need torch, safetensors and pyarrow. The folder appears when it is complete and
was found to score as the run does.

  fae export runs/my served
  python served/check.py day8.csv.gz --out scores.parquet
  python served/serve.py --port 8080
  fae export runs/my small --dtype int8       a quarter of the bytes; manifest.json says what it costs
  fae export runs/day2 new --since served     what day 2 has changed; python new/apply.py served both
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export", help="a finished run as a folder that scores and serves without FAE", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("folder", metavar="DIR", help="folder to write; it must not be there")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16", "int8"), default="float32",
        help="type of the rows (int8: with a scale a row); the change of AUC is measured (default: float32)",
    )  # fmt: skip
    parser.add_argument("--onnx", action="store_true", help="model.onnx too, checked by onnxruntime (extra fae[onnx])")
    parser.add_argument("--triton", action="store_true", help="a model repository for Triton Inference Server too")
    parser.add_argument(
        "--since", metavar="EARLIER", help="write only rows that changed since an earlier export, and an apply.py"
    )
    parser.add_argument(
        "--file-size",
        metavar="SIZE",
        default="4GiB",
        help="largest file of rows; a larger table is cut (4GiB)",
    )
    parser.add_argument("--replace", action="store_true", help="write DIR anew, if it is an exported folder")
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Write the folder."""
    from fae.core.units import parse_bytes
    from fae.exporting.export_run import export

    return export(
        options.run, options.folder, dtype=options.dtype, onnx=options.onnx, triton=options.triton, since=options.since,
        file_bytes=parse_bytes(options.file_size, what="--file-size"), replace=options.replace,
    )  # fmt: skip
