"""``train`` of the run record: how a training went, from where it is."""

from __future__ import annotations

from typing import Any

from fae.embedding.base import Embeddings
from fae.training.position import Position
from fae.training.quality.turning import find_turn
from fae.training.ranks.rank_work import RankWork
from fae.training.schedule import Schedule


def train_result(
    position: Position, schedule: Schedule, embeddings: Embeddings, precision: str, rank_work: RankWork
) -> dict[str, Any]:
    """JSON values, described in docs/reference/run_record.md."""
    curve = list(position.curve)  # the open window stays open in the checkpoint: more epochs continue it
    if position.window_inputs:
        curve.append([position.inputs, position.window_loss / position.window_inputs])
    return {
        "samples_per_second": position.inputs_per_second(),
        "seconds": position.seconds,
        "num_inputs": position.inputs,
        "num_batches": position.batches,
        "epochs": schedule.epoch,
        "stopped_early": position.stopped_early,
        "stopped_by": position.stopped_by,
        "loss_curve": curve,
        "validation_curve": position.validation,
        "epoch_curve": position.epoch_curve,
        "validation_turned": find_turn(position.epoch_curve),
        "schedule": schedule.trace,
        "precision": precision,
        "threads": position.threads,
        "ranks": embeddings.group.world,
        "wire": embeddings.group.wire,
        "reproducible": embeddings.group.reproducible,
        "each_rank": rank_work.gathered(),
        "device_bytes": embeddings.device_bytes,
        "traffic": position.traffic_since_start(embeddings),
        "phase_seconds": position.phases_since_start(embeddings),
    }
