"""On a GPU: callbacks, validation inside epochs and metrics.jsonl change no byte, and miss no window."""

from __future__ import annotations

import json
from pathlib import Path

import fae
from fae.training.watching.events import EpochEnded, WindowClosed

from commands import write_log, write_recipe


class Windows(fae.Callback):
    def __init__(self) -> None:
        self.seen: list[WindowClosed] = []

    def on_window(self, window: WindowClosed) -> None:
        self.seen.append(window)


def tables(run: Path) -> dict[str, bytes]:
    checkpoint = run / "checkpoint"
    return {path.name: path.read_bytes() for path in (*checkpoint.glob("tables/*"), checkpoint / "dense.safetensors")}


def test_watching_changes_no_byte(tmp_path: Path) -> None:
    write_log(tmp_path, 3000)
    path = write_recipe(tmp_path, train={"epochs": 3})
    plain = fae.RunFolder(fae.load_recipe(path), tmp_path / "plain", device="cuda").run()
    windows = Windows()
    recipe = fae.load_recipe(path, ["train.validate_batches=7", "train.checkpoint_batches=11", "train.group_by=user"])
    watched = fae.RunFolder(recipe, tmp_path / "watched", device="cuda", callbacks=[windows]).run()
    assert tables(tmp_path / "watched") == tables(tmp_path / "plain")
    assert watched["train"]["loss_curve"] == plain["train"]["loss_curve"]
    lines = [json.loads(line) for line in (tmp_path / "watched/metrics.jsonl").read_text().splitlines()]
    written = [[line["inputs"], line["loss"]] for line in lines if line["event"] == "window"]
    assert written == [[window.inputs, window.loss] for window in windows.seen]
    assert written == watched["train"]["loss_curve"][: len(written)]
    assert len(written) >= len(watched["train"]["loss_curve"]) - 1  # the open window at the end is in the record alone
    assert watched["test"]["group_auc"]["column"] == "user"
    assert [each["loss"] for each in watched["train"]["epoch_curve"]] == [
        each["loss"] for each in plain["train"]["epoch_curve"]
    ]


def test_a_callback_ends_a_training_of_captured_steps(tmp_path: Path) -> None:
    class Ending(fae.Callback):
        def on_epoch(self, epoch: EpochEnded) -> None:
            self.stop("seen enough")

    write_log(tmp_path, 3000)
    recipe = fae.load_recipe(write_recipe(tmp_path, train={"epochs": 3}))
    record = fae.RunFolder(recipe, tmp_path / "run", device="cuda", callbacks=[Ending()]).run()
    assert record["train"]["stopped_by"] == "Ending: seen enough"
    assert record["train"]["epochs"] == 1
