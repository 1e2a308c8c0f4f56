"""The columns of each synthetic log: Criteo's (two logs), Avazu's, or independent Zipf columns.

Constants only, for `fae.synthetic.inputs`. The log of sequences has its own generator (`fae.synthetic.sequences`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fae.synthetic.columns import ColumnShape, CountShape


@dataclass(frozen=True, kw_only=True)
class LogShape:
    """The columns of a log, and which of them clicks depend on.

    Attributes
    ----------
    latent
        Names of the two columns whose distributions users and items have.
    user, item
        The columns that say most about a click: each value has an effect and a latent vector.
    pair
        Two columns; every pair of their values has an effect.
    """

    columns: tuple[ColumnShape, ...]
    missing_shares: Mapping[str, float] = field(default_factory=dict)
    counts: tuple[CountShape, ...] = ()
    count_missing_shares: Mapping[str, float] = field(default_factory=dict)
    latent: tuple[str, str]
    user: str
    item: str
    pair: tuple[str, str]


_CRITEO_MISSING = {"group C3": 0.037, "group C19": 0.412, "C6": 0.136, "C22": 0.820}

# Numbers of values: the published cardinalities of the Criteo Kaggle log (45.8 M inputs). Head and missing shares:
# measured on 79,335 of its inputs. Curves: fitted to the distinct values, the shares of the top 1 % and 10 % of values
# and the share of values seen once in those inputs (benchmarks/micro/synthetic_fit.py of commit 4595878; C6 C11 C13 C18
# by a random search for the same loss). Source and mapping: chosen so that the hot-input share comes out right
# (docs/guide/synthetic.md).
_CRITEO_COLUMNS = (
    ColumnShape("C1", 1460, 0.503, "", 1.11, 1.944, "user", "hash", 174.0, 1.415, 0.4),
    ColumnShape("C2", 583, 0.125, "", 4.48, 1.165, "user", "hash", 129.0, 3.239, 0.4),
    ColumnShape("C3", 10131227, 0.0, "group C3", 3.87, 1.039, "item", "rank", 12200.0, 1.061),
    ColumnShape("C4", 2202608, 0.054, "group C3", 5.57, 1.06, "item", "rank", 27100.0, 1.615),
    ColumnShape("C5", 305, 0.671, "", 1.11, 2.182, "user", "hash", 58.9, 10.42, 0.2),
    ColumnShape("C6", 24, 0.465, "C6", 0.4531, 0.7455, "context", "hash", 4.434, 37.94),
    ColumnShape("C7", 12517, 0.01, "", 23.0, 0.9529, "user", "rank", 3950.0, 3.445),
    ColumnShape("C8", 633, 0.593, "", 1.35, 1.949, "user", "hash", 99.7, 12.0, 0.2),
    ColumnShape("C9", 3, 0.887, "", 1.0, 5.0, "context", "hash", 2.52, 0.05),
    ColumnShape("C10", 93145, 0.266, "", 62.2, 1.218, "item", "rank", 7450.0, 2.454),
    ColumnShape("C11", 5683, 0.021, "", 15.28, 0.9946, "user", "rank", 2729.0, 7.87),
    ColumnShape("C12", 8351593, 0.0, "group C3", 3.84, 1.047, "item", "rank", 20500.0, 1.085),
    ColumnShape("C13", 3194, 0.023, "", 12.5, 1.014, "user", "rank", 1993.0, 8.245),
    ColumnShape("C14", 27, 0.364, "", 3.82, 4.242, "item", "hash", 2.11, 5.375),
    ColumnShape("C15", 14992, 0.02, "", 43.8, 1.328, "context", "hash", 2090.0, 2.831),
    ColumnShape("C16", 5461306, 0.0, "group C3", 1.75, 1.013, "item", "rank", 6830.0, 1.174),
    ColumnShape("C17", 10, 0.426, "", 1.0, 1.543, "item", "hash", 1.75, 1.439),
    ColumnShape("C18", 5652, 0.054, "", 40.33, 1.759, "context", "hash", 1690.0, 4.083),
    ColumnShape("C19", 2173, 0.0, "group C19", 0.832, 1.374, "user", "rank", 1120.0, 5.476),
    ColumnShape("C20", 4, 0.0, "group C19", 1.0, 1.1, "item", "hash", 2.0, 1.1),
    ColumnShape("C21", 7046547, 0.0, "group C3", 2.13, 1.027, "item", "rank", 12700.0, 1.12),
    ColumnShape("C22", 18, 0.0, "C22", 1.01, 0.05, "context", "hash", 2.56, 12.0),
    ColumnShape("C23", 15, 0.444, "", 0.552, 0.9992, "item", "hash", 5.5, 2.654),
    ColumnShape("C24", 286181, 0.074, "group C3", 2.4, 1.113, "item", "rank", 7960.0, 1.948),
    ColumnShape("C25", 105, 0.0, "group C19", 2.54, 2.127, "item", "hash", 27.7, 12.0),
    ColumnShape("C26", 142572, 0.0, "group C19", 2.05, 1.066, "user", "rank", 4870.0, 1.821),
)


_COUNT_MISSING = {"": 0.0, "I1": 0.45, "I3": 0.21, "I4": 0.22, "I5": 0.03, "I6": 0.22, "I7": 0.04, "I12": 0.76}

# Chosen to look like the public log (magnitudes, missing shares and which counts go missing together), not fitted.
_COUNTS = (
    CountShape("I1", 0.8, 1.1, "I1", 0.6),
    CountShape("I2", 2.0, 2.0, "", -0.3, shift=-2),
    CountShape("I3", 2.0, 1.4, "I3"),
    CountShape("I4", 1.6, 0.9, "I4", -0.3),
    CountShape("I5", 7.5, 2.2, "I5", -0.5),
    CountShape("I6", 3.6, 1.5, "I6", -0.4),
    CountShape("I7", 1.6, 1.4, "I7", 0.6),
    CountShape("I8", 2.0, 1.1, ""),
    CountShape("I9", 3.9, 1.3, "I7", 0.2),
    CountShape("I10", 0.2, 0.5, "I1"),
    CountShape("I11", 0.9, 0.8, "I7", 0.5),
    CountShape("I12", 0.3, 0.6, "I12"),
    CountShape("I13", 1.7, 1.0, "I4", -0.2),
)


CRITEO = LogShape(
    columns=_CRITEO_COLUMNS, missing_shares=_CRITEO_MISSING, counts=_COUNTS, count_missing_shares=_COUNT_MISSING,
    latent=("C3", "C3"), user="C13", item="C10", pair=("C17", "C14"),
)  # fmt: skip

# Numbers of values: the published cardinalities of the Avazu log (40.4 M inputs). Heads and curves are guesses from
# what is commonly said of it: most inputs are of one application or one site, and half the devices share one id.
_AVAZU_COLUMNS = (
    ColumnShape("hour", 240, 0.0, "", 1.0, 1.0, "time"),
    ColumnShape("C1", 7, 0.918, "", 1.0, 2.0, "item"),
    ColumnShape("banner_pos", 7, 0.720, "", 0.2, 3.0, "item"),
    ColumnShape("site_id", 4737, 0.361, "", 3.0, 1.5, "item", "rank"),
    ColumnShape("site_domain", 7745, 0.374, "", 3.0, 1.5, "item", "rank"),
    ColumnShape("site_category", 26, 0.409, "", 0.5, 3.0, "item"),
    ColumnShape("app_id", 8552, 0.639, "", 8.0, 1.6, "item", "rank"),
    ColumnShape("app_domain", 559, 0.674, "", 1.0, 2.0, "item", "rank"),
    ColumnShape("app_category", 36, 0.647, "", 0.5, 3.0, "item"),
    ColumnShape("device_id", 2686408, 0.825, "", 60.0, 1.05, "user", "rank"),
    ColumnShape("device_ip", 6729486, 0.005, "", 150.0, 1.05, "user", "rank"),
    ColumnShape("device_model", 8251, 0.061, "", 30.0, 1.5, "user"),
    ColumnShape("device_type", 5, 0.923, "", 0.5, 3.0, "user"),
    ColumnShape("device_conn_type", 4, 0.863, "", 0.5, 2.0, "context"),
    ColumnShape("C14", 2626, 0.023, "", 60.0, 1.9, "item", "rank"),
    ColumnShape("C15", 8, 0.932, "", 0.5, 3.0, "item"),
    ColumnShape("C16", 9, 0.943, "", 0.5, 3.0, "item"),
    ColumnShape("C17", 435, 0.113, "", 20.0, 2.0, "item", "rank"),
    ColumnShape("C18", 4, 0.418, "", 1.0, 1.1, "item"),
    ColumnShape("C19", 68, 0.219, "", 3.0, 2.0, "item"),
    ColumnShape("C20", 172, 0.468, "", 8.0, 2.0, "context"),
    ColumnShape("C21", 60, 0.219, "", 3.0, 2.0, "item"),
)
AVAZU = LogShape(
    columns=_AVAZU_COLUMNS, latent=("device_ip", "C14"), user="device_model", item="C14",
    pair=("site_category", "device_type"),
)  # fmt: skip

# Criteo's tables with independent columns: fine to measure speed, wrong for the share of hot inputs.
ZIPF = LogShape(
    columns=tuple(ColumnShape(c.name, c.num_embeddings, 0.0, "", 1.0, 1.05, "context") for c in _CRITEO_COLUMNS),
    counts=_COUNTS, count_missing_shares=_COUNT_MISSING, latent=("C3", "C3"), user="C13", item="C10",
    pair=("C17", "C14"),
)  # fmt: skip

# Numbers of values: the published cardinalities of the Criteo Terabyte log, ids capped at 40 M (MLPerf). No curve is
# fitted to it: its k-th largest column is Kaggle's k-th largest, stretched to its own number of values.
_TERABYTE_SIZES = (
    39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155, 4, 976, 14,
    39979771, 25641295, 39664984, 585935, 12972, 108, 36,
)  # fmt: skip


def _with_sizes(columns: tuple[ColumnShape, ...], sizes: tuple[int, ...]) -> tuple[ColumnShape, ...]:
    """The columns with other numbers of values: the k-th smallest column gets the k-th smallest size."""
    by_size = sorted(range(len(columns)), key=lambda index: columns[index].num_embeddings)
    size_of = dict(zip(by_size, sorted(sizes), strict=True))
    return tuple(replace(column, num_embeddings=size_of[index]) for index, column in enumerate(columns))


TERABYTE = replace(CRITEO, columns=_with_sizes(_CRITEO_COLUMNS, _TERABYTE_SIZES))

TABLE_SHAPES = {"criteo": CRITEO, "terabyte": TERABYTE, "avazu": AVAZU, "zipf": ZIPF}
