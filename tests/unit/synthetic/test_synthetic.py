"""The synthetic log: its format, its shape, its planted clicks, and that it is the same every time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fae.core.errors import ArtifactError, RecipeError
from fae.synthetic.columns import MISSING_COUNT, Marginal, mixed_bits, spread_bits
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.synthetic.shapes import CRITEO
from fae.synthetic.text_writer import SyntheticConfig, SyntheticLog, auc_of_histogram, encode_lines, write_criteo_tsv

COLUMNS, COUNTS = CRITEO.columns, CRITEO.counts
NAMES = [shape.name for shape in COLUMNS]


def draw(config: SyntheticConfig, num_inputs: int, what: str) -> np.ndarray:
    log = SyntheticLog(config)
    chunks = [getattr(log.chunk(index), what) for index in range(-(-num_inputs // CHUNK_INPUTS))]
    return np.concatenate(chunks)[:num_inputs]


def hot_input_share(ids: np.ndarray, budget: float, train: int | None = None) -> float:
    """Share of inputs all of whose lookups are among the most frequent rows, `budget` of those accessed."""
    counts, rarest = [], np.full(len(ids), len(ids))
    for column in range(ids.shape[1]):
        _, inverse = np.unique(ids[:, column], return_inverse=True)
        count = np.bincount(inverse[:train], minlength=int(inverse.max()) + 1)
        counts.append(count[count > 0])
        rarest = np.minimum(rarest, count[inverse])
    accesses = np.sort(np.concatenate(counts))[::-1]
    return float((rarest[train or 0 :] > accesses[int(budget * len(accesses))]).mean())


@pytest.fixture(scope="module")
def full_scale_ids() -> np.ndarray:
    return draw(SyntheticConfig(num_inputs=79_335, scale=1.0), 79_335, "ids")


def test_lines_have_criteos_format(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.tsv"
    summary = write_criteo_tsv(SyntheticConfig(num_inputs=3000), path)
    text = path.read_text()
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) == summary.num_inputs == 3000
    assert len(text) == summary.num_bytes
    line = re.compile(r"[01](\t(-1|\d{1,5})?){13}(\t([0-9a-f]{8})?){26}")
    assert all(line.fullmatch(row) for row in lines)
    assert list(tmp_path.rglob(".*")) == []
    fields = np.array([row.split("\t") for row in lines])
    assert (fields[:, 2] == "-1").any(), "I2 has negative counts"
    assert np.mean(fields[:, 0] == "1") == pytest.approx(summary.click_rate)


def test_text_says_what_was_drawn(tmp_path: Path) -> None:
    config = SyntheticConfig(num_inputs=500, seed=4)
    write_criteo_tsv(config, tmp_path / "log.tsv")
    fields = np.array([row.split("\t") for row in (tmp_path / "log.tsv").read_text().splitlines()])
    chunk = SyntheticLog(config).chunk(0)
    assert fields[:, 0].astype(int).tolist() == chunk.labels[:500].tolist()
    shown = np.where(fields[:, 1:14] == "", str(MISSING_COUNT), fields[:, 1:14]).astype(int)
    assert (shown == chunk.counts[:500]).all()
    for column in range(26):
        texts, ids = fields[:, 14 + column], chunk.ids[:500, column]
        assert ((texts == "") == (ids < 0)).all()
        pairs = set(zip(texts.tolist(), ids.tolist(), strict=True))
        assert len(pairs) == len(set(texts)) == len(set(ids.tolist())), "one text for each value, and no other"


def test_same_configuration_same_bytes_and_a_part_is_the_beginning(tmp_path: Path) -> None:
    config = SyntheticConfig(num_inputs=CHUNK_INPUTS + 1000)
    write_criteo_tsv(config, tmp_path / "a")
    write_criteo_tsv(config, tmp_path / "b")
    part = write_criteo_tsv(config, tmp_path / "part", num_inputs=1234)
    whole = (tmp_path / "a").read_bytes()
    assert whole == (tmp_path / "b").read_bytes()
    assert part.num_inputs == 1234
    assert whole.startswith((tmp_path / "part").read_bytes())
    write_criteo_tsv(SyntheticConfig(num_inputs=1234, seed=2), tmp_path / "other")
    assert (tmp_path / "other").read_bytes() != (tmp_path / "part").read_bytes()


def test_missing_values_go_missing_together(full_scale_ids: np.ndarray) -> None:
    missing = full_scale_ids < 0
    for names, share in ((("C3", "C4", "C12", "C16", "C21", "C24"), 0.037), (("C19", "C20", "C25", "C26"), 0.412)):
        columns = [NAMES.index(name) for name in names]
        assert (missing[:, columns] == missing[:, columns[:1]]).all()
        assert missing[:, columns[0]].mean() == pytest.approx(share, abs=0.004)
    never = [NAMES.index(shape.name) for shape in COLUMNS if not shape.missing]
    assert not missing[:, never].any()


def test_hot_input_share_is_in_the_region_of_the_real_log(full_scale_ids: np.ndarray) -> None:
    for budget, real in ((0.01, 0.035), (0.05, 0.20), (0.10, 0.33), (0.20, 0.46)):
        assert hot_input_share(full_scale_ids, budget) == pytest.approx(real, rel=0.25), budget
    shuffled = np.random.default_rng(1).permuted(full_scale_ids, axis=0)
    assert hot_input_share(shuffled, 0.10) < 0.05, "the marginals alone must not make inputs hot"


def test_hot_rows_lose_worth_over_time(full_scale_ids: np.ndarray) -> None:
    seen = hot_input_share(full_scale_ids[:59_500], 0.10)
    assert 0.02 < seen - hot_input_share(full_scale_ids, 0.10, train=59_500) < 0.06


def test_drift_replaces_values_and_can_be_switched_off() -> None:
    column = NAMES.index("C7")
    steady, moving = (
        draw(SyntheticConfig(num_inputs=CHUNK_INPUTS * 2, num_days=2, drift=drift, scale=0.1), CHUNK_INPUTS * 2, "ids")
        for drift in (0.0, 0.5)
    )
    assert (steady[:CHUNK_INPUTS] == moving[:CHUNK_INPUTS]).all(), "the first day is the same"
    changed = steady[CHUNK_INPUTS:, column] != moving[CHUNK_INPUTS:, column]
    assert 0.3 < changed.mean() < 0.7
    assert (steady[:, NAMES.index("C14")] == moving[:, NAMES.index("C14")]).all(), "small columns stay"


def test_distinct_values_follow_the_real_log_and_the_scale(full_scale_ids: np.ndarray) -> None:
    real = {"C3": 34942, "C4": 20683, "C12": 32986, "C16": 27806, "C21": 30921, "C24": 10508, "C7": 7210, "C26": 8144}
    for name, distinct in real.items():
        assert len(np.unique(full_scale_ids[:, NAMES.index(name)])) == pytest.approx(distinct, rel=0.05), name
    for shape in COLUMNS:
        assert shape.at_scale(1.0).size <= shape.num_embeddings
        assert shape.at_scale(1e-6).size <= 1000
    assert COLUMNS[2].at_scale(0.01).size == pytest.approx(101312, abs=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_clicks(seed: int, tmp_path: Path) -> None:
    config = SyntheticConfig(num_inputs=40_000, seed=seed)
    summary = write_criteo_tsv(config, tmp_path / "log.tsv")
    assert summary.click_rate == pytest.approx(0.25, abs=0.02)
    assert 0.77 < summary.best_auc < 0.83
    labels, probabilities = (draw(config, 40_000, what) for what in ("labels", "probabilities"))
    sklearn = pytest.importorskip("sklearn.metrics")
    assert summary.best_auc == pytest.approx(sklearn.roc_auc_score(labels, probabilities), abs=1e-4)
    assert summary.best_log_loss == pytest.approx(sklearn.log_loss(labels, probabilities), abs=1e-9)
    # Probabilities are honest: in each decile, as many clicks as they say.
    order = np.argsort(probabilities).reshape(10, -1)
    assert labels[order].mean(1) == pytest.approx(probabilities[order].mean(1), abs=0.03)


def test_clicks_depend_on_counts_and_on_ids(tmp_path: Path) -> None:
    log = SyntheticLog(SyntheticConfig(num_inputs=CHUNK_INPUTS))
    chunk = log.chunk(0)
    present = chunk.counts[:, 0] != MISSING_COUNT
    assert abs(np.corrcoef(np.log1p(chunk.counts[present, 0]), chunk.probabilities[present])[0, 1]) > 0.1
    segment = chunk.ids[:, NAMES.index("C13")]
    frequent = np.flatnonzero(np.bincount(segment) > 50)
    means = [chunk.probabilities[segment == value].mean() for value in frequent]
    assert np.std(means) > 0.05


def test_click_rate_is_a_dial(tmp_path: Path) -> None:
    summary = write_criteo_tsv(SyntheticConfig(num_inputs=20_000, click_rate=0.03), tmp_path / "log.tsv")
    assert summary.click_rate == pytest.approx(0.03, abs=0.01)


@pytest.mark.parametrize("gap", [-1.5, 0.0, 1.5])
def test_label_gap_follows_popularity(gap: float) -> None:
    """Clicks of the inputs that are hot at a budget of a tenth of the rows, against those of the others."""
    config = SyntheticConfig(num_inputs=60_000, label_gap=gap)
    ids, labels = draw(config, 60_000, "ids"), draw(config, 60_000, "labels")
    rarest = np.full(len(ids), len(ids))
    for column in range(ids.shape[1]):
        _, inverse, count = np.unique(ids[:, column], return_inverse=True, return_counts=True)
        rarest = np.minimum(rarest, count[inverse])
    hot = rarest >= np.median(rarest)
    difference = float(labels[hot].mean() - labels[~hot].mean())
    assert abs(difference) < 0.06 if gap == 0 else 0.08 < difference * np.sign(gap) < 0.5
    assert labels.mean() == pytest.approx(0.25, abs=0.02)
    plain = SyntheticConfig(num_inputs=60_000)
    assert (draw(plain, 20_000, "ids") == ids[:20_000]).all(), "the inputs are the same, only the clicks differ"


def test_tiny_log(tmp_path: Path) -> None:
    summary = write_criteo_tsv(SyntheticConfig(num_inputs=1), tmp_path / "log.tsv")
    assert np.isnan(summary.best_auc)
    assert (tmp_path / "log.tsv").read_bytes().count(b"\n") == 1


def test_auc_counts_pairs_and_ties() -> None:
    rng = np.random.default_rng(1)
    histogram = rng.integers(0, 4, (2, 6))
    pairs = sum(
        histogram[0, low] * histogram[1, high] * (1.0 if low < high else 0.5 if low == high else 0.0)
        for low in range(6)
        for high in range(6)
    )
    assert auc_of_histogram(histogram) == pytest.approx(pairs / (histogram[0].sum() * histogram[1].sum()))


def test_extreme_counts_fit_their_room() -> None:
    counts = np.full((2, len(COUNTS)), 99_999, np.int32)
    counts[1] = MISSING_COUNT
    ids = np.full((2, len(COLUMNS)), -1, np.int32)
    columns = SyntheticLog(SyntheticConfig()).columns
    first, second, _ = encode_lines(np.array([1, 0], np.uint8), counts, ids, columns).decode().split("\n")
    assert first == "1" + "\t99999" * 13 + "\t" * 26
    assert second == "0" + "\t" * 39


def test_table_follows_the_curve() -> None:
    """Against weights added up value by value, with and without knee and head, at exponents around 1."""
    for exponent, knee, tail in ((0.7, 0.0, 1.0), (1.0, 0.0, 1.0), (1.05, 50.0, 2.5), (2.5, 300.0, 1.0)):
        marginal = Marginal(5000, 0.0, 30.0, exponent, knee, tail)
        edges = np.arange(5001) + 30.0
        weights = np.where(
            (edges < knee + 30.0) | (knee == 0.0), edges**-exponent,
            (knee + 30.0) ** -exponent * (edges / (knee + 30.0)) ** -tail,
        )  # fmt: skip
        mass = np.append(0.0, np.cumsum((weights[1:] + weights[:-1]) / 2))
        ranks = np.array([1, 10, 60, 400, 3000])
        found = marginal.table().share_below(ranks.astype(float))
        assert found == pytest.approx(mass[ranks] / mass[-1], abs=2e-3), (exponent, knee)


def test_head_takes_its_share_and_draws_stay_inside() -> None:
    table = Marginal(10, 0.4, 1.0, 1.1).table()
    bits = np.array([0, 0.399 * 2**32, 0.401 * 2**32, 2**32 - 1]).astype(np.uint32)
    assert table.draw(bits).tolist() == [0, 0, 1, 10]
    assert table.draw(bits.astype(np.uint64) << np.uint64(32)).tolist() == [0, 0, 1, 10]
    assert Marginal(1, 0.0, 1.0, 1.1).table().draw(bits).tolist() == [0, 0, 0, 0]
    assert table.share_below(np.array([0.0, 1.0, 11.0])) == pytest.approx([0.0, 0.4, 1.0], abs=1e-4)


def test_mixed_bits_are_even_and_differ_by_salt() -> None:
    keys = np.arange(20_000, dtype=np.int32)
    first, second, spread = mixed_bits(keys, 1), mixed_bits(keys, 2), spread_bits(mixed_bits(keys, 1), 7)
    assert len(np.unique(first)) == len(keys), "a bijection"
    for bits in (first, second, spread):
        assert np.histogram(bits, 10, (0, 2**32))[0] == pytest.approx(2000, abs=200)
    for other in (second, spread):
        assert abs(np.corrcoef(first.astype(float), other.astype(float))[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_inputs": 0}, "num_inputs = 0 must be"),
        ({"scale": 0.0}, "scale = 0.0 must be"),
        ({"scale": 5.0}, "scale = 5.0 must be"),
        ({"num_days": 0}, "num_days = 0 must be"),
        ({"drift": 1.0}, "drift = 1.0 must be"),
        ({"click_rate": 1.0}, "click_rate = 1.0 must be"),
        ({"seed": -1}, "seed = -1 must be"),
        ({"label_gap": 11.0}, "label_gap = 11.0 must be"),
        ({"label_gap": 1.0, "shape": "taobao"}, "plain columns"),
    ],
)
def test_bad_configurations(values: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SyntheticConfig(**values)


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    config = SyntheticConfig(num_inputs=10)
    for wrong in (0, 11):
        with pytest.raises(RecipeError, match=f"num_inputs = {wrong} must be from 1 to the log's 10"):
            write_criteo_tsv(config, tmp_path / "log.tsv", num_inputs=wrong)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="cannot write"):
        write_criteo_tsv(config, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
