"""The verdict, what to try next, and the meaning of words: each sentence from records that call for it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fae.report.records import RunRecord
from fae.report.sentences.commands import again, folder_of, run_arguments
from fae.report.sentences.glossary import GLOSSARY, explain
from fae.report.sentences.next_steps import MOST_STEPS, RULES, next_steps
from fae.report.sentences.run_verdict import verdict_of
from run_records import Page, make_record, make_run, paper_record

COMMAND = "fae run 'my log.toml' --out runs/a --json --set train.epochs=2 --budget 4KiB --replace"


def run_of(**sections: dict[str, Any] | str) -> RunRecord:
    """The complete record with values of some sections replaced, dotted paths as ``hot__budget_bytes``."""
    record = copy.deepcopy(make_record())
    for path, value in sections.items():
        *outer, last = path.split("__")
        inner = record
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return RunRecord(label="a", record=record)


def large(**sections: Any) -> RunRecord:
    """A run on a GPU whose tables take 64 GiB."""
    tables = [{"name": name, "num_embeddings": 2**29, "embedding_dim": 4, "num_hot": 2**20, "bytes": 2**25,
               "coverage": coverage} for name, coverage in (("user", 0.5), ("item", 0.9), ("site", 0.99))]  # fmt: skip
    facts = [{"name": one["name"], "num_embeddings": 2**29, "row_bytes": 32, "accesses": 1000} for one in tables]
    given = {
        "machine__gpu": "A GPU", "machine__cores": 16, "hot__tables": tables, "tables": facts,
        "hot__num_rows": 3 * 2**20, "hot__budget_bytes": 4096, "train__device_bytes": 2**30,
        "recipe__model__embedding_dim": 16,
        "test": {"auc": 0.75, "log_loss": 0.48, "label_rate": 0.25, "num_inputs": 50_000}, "command": COMMAND,
    }  # fmt: skip
    return run_of(**{**given, **sections})


def test_verdict_of_a_run_on_a_gpu() -> None:
    assert verdict_of([large(train__epochs=2)]) == (
        "DLRM, trained for 2 epochs on 216 inputs, reaches a test AUC of 0.7500 (guessing: 0.5) and a log loss of "
        "0.4800, 15 % below that of the base rate of 25.0 % (0.5623), at 1,234 inputs/s on A GPU; FAE helped: it took "
        "1.0 GiB of GPU memory for rows instead of 48.0 GiB, and 34.5 % of the inputs needed no other rows."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recipe__train__placement": "device"}, "FAE did not help, as placement device makes no use of hot rows"),
        (
            {"recipe__train__placement": "spread"},
            "FAE helped: it took 1.0 GiB of GPU memory for rows instead of 48.0 GiB",
        ),
        ({"recipe__train__placement": "spread", "machine__gpu": None}, "ranks of CPUs have all rows in host memory"),
        ({"hot__num_rows": 3 * 2**29}, "FAE was not needed, as the budget holds every row of every table (48.0 GiB)"),
        ({"train__ranks": 2}, " inputs by 2 GPUs, "),
        ({"train__ranks": 4, "machine__gpu": None}, " inputs by 4 processes, "),
        ({"machine__gpu": None}, "on 16 CPU cores; it took 1.0 GiB of the fast tier"),
        ({"machine__gpu": None}, "whether FAE helps needs a GPU to be seen"),
        ({"train__device_bytes": 2**37}, "FAE saved nothing"),
        ({"test__log_loss": 0.6}, "7 % above that of the base rate"),
        ({"test__log_loss": 0.5625}, "no better than that of the base rate"),
        ({"parent__test_before__auc": 0.74}, "a test AUC of 0.7500 (before: 0.7400; guessing: 0.5)"),
        ({"test__auc": 0.503}, "(guessing: 0.5, within noise of guessing)"),
    ],
)
def test_verdicts(changes: dict[str, Any], expected: str) -> None:
    assert expected in verdict_of([large(**changes)])


def test_small_tables_need_no_fae() -> None:
    assert "tables this small fit any GPU whole, so FAE was not needed" in verdict_of([make_run()])


def test_verdict_beside_plain_pytorch() -> None:
    plain = {"recipe": {"train": {"placement": "plain PyTorch on the CPU"}}, "test": {**large().record["test"]},
             "train": {"samples_per_second": 500.0}}  # fmt: skip
    text = verdict_of([large(), RunRecord(label="p", record=plain)])
    assert ", like plain PyTorch (0.7500 and 0.4800), at 1,234 inputs/s" in text
    assert "2.5 times the speed of plain PyTorch" in text
    plain["test"] = {**plain["test"], "auc": 0.7501}
    assert ", within noise of plain PyTorch (0.7501" in verdict_of([large(), RunRecord(label="p", record=plain)])
    plain["test"] = {**plain["test"], "auc": 0.7}
    plain["train"] = {"samples_per_second": 1200.0}
    text = verdict_of([large(), RunRecord(label="p", record=plain)])
    assert ", above plain PyTorch (0.7000 and 0.4800)" in text
    assert "as fast as plain PyTorch" in text


def test_verdict_of_several_runs() -> None:
    runs = [large(), RunRecord(label="b", record=large(test__auc=0.7, train__samples_per_second=3000.0).record)]
    assert verdict_of(runs) == "Of 2 runs: a (0.7500) has the best test AUC; b (3,000) has the best speed, in inputs/s."
    runs[1] = RunRecord(label="b", record=large(test__auc=0.7501).record)
    assert "the test AUC is the same within noise (0.7500, 0.7501); no run is faster" in verdict_of(runs)
    assert "have neither a test AUC nor a rate" in verdict_of([RunRecord(label=x, record={"hot": {}}) for x in "ab"])


def test_verdict_of_a_bench() -> None:
    record = RunRecord(label="p", record=paper_record())
    assert verdict_of([record]) == (
        "FAE tiered shuffled trains 612,069 inputs/s in batches of 32,768 with 255.6 MiB of rows on the GPU: 149.9x "
        "plain PyTorch, CPU only; 27.9x plain PyTorch, CPU-GPU; 0.93x every row on the GPU."
    )
    assert verdict_of([make_run(), record]).startswith("DLRM, trained on 432 inputs")
    assert "too little" in verdict_of([RunRecord(label="p", record=paper_record(tables=[]))])


def test_an_empty_record_has_a_verdict() -> None:
    assert "says too little" in verdict_of([RunRecord(label="a", record={"train": {}})])


def curve(*losses: float) -> list[dict[str, Any]]:
    return [{"inputs": 100 * (place + 1), "whole": True, "log_loss": loss} for place, loss in enumerate(losses)]


def points(*shares: float) -> list[dict[str, Any]]:
    return [
        {"budget_bytes": 1024 << place, "coverage": 0.9, "input_share": share} for place, share in enumerate(shares)
    ]


AGAIN = "fae run 'my log.toml' --set train.epochs=2 --budget 4KiB --out runs/a_"


@pytest.mark.parametrize(
    ("changes", "title", "command"),
    [
        (
            {"test__log_loss": 0.7},
            "Train with a smaller learning rate",
            f"{AGAIN}slower --set train.learning_rate=0.025",
        ),
        (
            {"train__validation_curve": curve(0.47, 0.45, 0.46, 0.5), "train__epochs": 4},
            "Stop after 2 epochs",
            "fae run 'my log.toml' --budget 4KiB --out runs/a_2_epochs --set train.epochs=2",
        ),
        (
            {"train__validation_curve": curve(0.47, 0.45), "train__epochs": 2},
            "Train 4 epochs",
            "fae run 'my log.toml' --budget 4KiB --out runs/a --set train.epochs=4",
        ),
        (
            {"train__validation_curve": curve(0.47), "train__epochs": 1},
            "Train 2 epochs",
            "fae run 'my log.toml' --budget 4KiB --out runs/a --set train.epochs=2",
        ),
        (
            {"hot__budgets__points": points(0.1, 0.2, 0.3, 0.5, 0.52)},
            "Give it 8.0 KiB",
            "fae run 'my log.toml' --set train.epochs=2 --out runs/a_8KiB --budget 8KiB",
        ),
        (
            {"hot__budgets__points": points(0.1, 0.495, 0.5, 0.52)},
            "2.0 KiB would do",
            "fae run 'my log.toml' --set train.epochs=2 --out runs/a_2KiB --budget 2KiB",
        ),
        (
            {
                "hot__num_rows": 3 * 2**29,
                "hot__budget_bytes": 2**40,
                "hot__budgets__points": points(0.5, 0.98, 0.995, 1),
            },
            "4.0 KiB would do",
            "fae run 'my log.toml' --set train.epochs=2 --out runs/a_4KiB --budget 4KiB",
        ),
        ({"hot__num_rows": 3 * 2**29}, "Keep every row on the GPU", f"{AGAIN}device --set train.placement=device"),
        (
            {"recipe__train__order": "shuffled", "machine__cores": 2},
            "Train hot and cold batches apart",
            f"{AGAIN}interleaved --set train.order=interleaved",
        ),
        ({}, "Train mixed batches", f"{AGAIN}shuffled --set train.order=shuffled"),
        (
            {"log__value_facts": {"user": {"looks_like": "key", "seen_once": 9, "distinct": 10}}},
            "Leave out user",
            f"""{AGAIN}fewer_columns --set 'log.categorical=["item", "site"]'""",
        ),
        ({}, "Make the rows of user narrower", f"{AGAIN}narrower --set model.embedding_dims.user=8"),
        (
            {"log__unknown_share": {"test": {"user": 0.3, "item": 0.1}}, "recipe__log__min_frequency": 1},
            "Give unknown ids a row that is trained",
            f"{AGAIN}min_frequency_2 --set log.min_frequency=2",
        ),
        (
            {"log__value_facts": {"user": {"seen_once": 60, "distinct": 100}}, "recipe__log__min_frequency": 1},
            "Drop the rows of values that occur once",
            f"{AGAIN}min_frequency_2 --set log.min_frequency=2",
        ),
        (
            {"test__context": {"columns": [{"column": "item", "auc": 0.749}]}},
            "Train the dense part faster",
            f"{AGAIN}faster --set train.dense_learning_rate=0.2",
        ),
        (
            {"log__splits": {"train": [0, 9], "validation": [9, 9], "test": [9, 12]}},
            "Keep a validation split",
            f"{AGAIN}validated --set log.validation_fraction=0.1",
        ),
    ],
)
def test_what_to_try_next(changes: dict[str, Any], title: str, command: str) -> None:
    found = {step.title: step for rule in RULES if (step := rule(large(**changes)))}
    assert title in found, list(found)
    assert found[title].command == command
    assert found[title].why
    assert not found[title].why.endswith(".")


def test_a_rule_says_nothing_where_it_has_nothing_to_say() -> None:
    calm = large(
        machine__cores=3, hot__budgets__points=points(0.5, 0.9, 0.92, 0.93), hot__input_share=0.92, train__epochs=3,
        train__validation_curve=curve(0.5, 0.47, 0.4699), recipe__log__min_frequency=1,
        log__unknown_share={"test": {"user": 0.01}}, log__value_facts={"user": {"seen_once": 3, "distinct": 100}},
        log__splits={"validation": [0, 5]}, test__context={"columns": [{"column": "item", "auc": 0.6}]},
    )  # fmt: skip
    assert next_steps(calm) == []
    assert next_steps(RunRecord(label="plain", record={"train": {"epochs": 1}})) == []
    assert len(next_steps(large(test__log_loss=0.7, train__validation_curve=curve(0.4, 0.5), machine__cores=2,
                                hot__budgets__points=points(0.1, 0.2, 0.3, 0.5, 0.9),
                                recipe__train__order="shuffled"))) <= MOST_STEPS  # fmt: skip


def test_commands_come_from_the_command_of_the_record() -> None:
    run = run_of(command=COMMAND)
    assert run_arguments(run) == ["my log.toml", "--set", "train.epochs=2", "--budget", "4KiB"]
    assert folder_of(run) == "runs/a"
    assert folder_of(run_of(command="fae run x/criteo.toml")) == "runs/criteo"
    assert folder_of(run_of(command="fae run c.toml --out=b/c")) == "b/c"
    assert (
        again(run_of(), "train.order", "shuffled", name="x")
        == "fae run RECIPE.toml --out a_x --set train.order=shuffled"
    )
    for odd in ("fae 'run", "fae demo --out x", "python -m fae", "", 3, None):
        assert again(run_of(command=odd), "--budget", "1MiB", name="x").startswith("fae run RECIPE.toml --out ")
    other = run_of(command="fae run r.toml --set hot.budget=1MiB --set model.name=tbsm")
    assert again(other, "--budget", "2MiB").split() == [
        "fae", "run", "r.toml", "--set", "model.name=tbsm", "--out", "runs/r", "--budget", "2MiB",
    ]  # fmt: skip


def test_words_are_explained_once_a_text_and_escaped() -> None:
    text = explain("<b> of hot-input share and hot inputs: AUC, AUC of hot rows/cold rows & budgets")
    page = Page(f"<p>{text}</p>")
    assert [at["popovertarget"] for tag, at in page.tags if tag == "button"] == ["word-hot-input", "word-auc"]
    assert page.text.startswith("<b> of")
    assert explain("nothing here") == "nothing here"


def test_the_glossary_is_sound() -> None:
    forms = [form.lower() for word in GLOSSARY for form in (word.name, *word.forms)]
    assert len(forms) == len(set(forms))
    assert len({word.key for word in GLOSSARY}) == len(GLOSSARY)
    assert all(word.meaning.endswith(".") for word in GLOSSARY)
