"""The training stage of a run: resumed from its own checkpoint, or started from another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fae.artifacts.checkpoint import COMMAND, FORMAT_VERSION, KIND, open_checkpoint, read_progress, read_result
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.hot_set import HotSet
from fae.artifacts.manifest import Manifest, Plan, is_current, require_parent
from fae.artifacts.packed import KIND as PACKED_KIND
from fae.artifacts.packed import PackedDataset
from fae.artifacts.packed_contents import check_batches
from fae.checkpoint.more_epochs import continues, trained_batches
from fae.core.errors import BudgetError
from fae.core.host_memory import available_bytes
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.embedding.memory_plan import times_ranks
from fae.models.most_weights import BYTES_OF_WEIGHT, most_weights
from fae.report.sentences.rank_lines import rank_lines
from fae.run.ahead.loops_ahead import named_features
from fae.run.context import RunContext
from fae.run.parent_test import evaluate_parent, read_parent_test
from fae.run.prepare import require_validation
from fae.run.rank_training import check_ranks
from fae.run.stages import CALIBRATE, INGEST, PACK, Stage
from fae.run.stale_files import clear_for_training, set_aside
from fae.training.config import ONLY_ON_CPUS_REPRODUCIBLE
from fae.training.quality.describe import has_groups

if TYPE_CHECKING:
    from torch import nn

    from fae.distributed.group import Group
    from fae.embedding.base import Embeddings
    from fae.embedding.memory_plan import MemoryPlan
    from fae.run.recipe import Recipe


class TrainStage(Stage[Manifest]):
    """Train and evaluate the model of the recipe."""

    name, kind, parents = "train", KIND, ("packed", "log")

    def plan(self, run: RunContext) -> Plan:
        """As `Stage.plan`."""
        packed, log, parent = PACK.open(run), INGEST.open(run), run.parent()
        require_validation(run.recipe, log)
        if parent:
            require_parent(log.manifest, parent.log.manifest, command="fae ingest RECIPE.toml")
        return plan_training(run, packed.fingerprints, log.manifest.fingerprint)

    def work(self, run: RunContext, plan: Plan, path: Path) -> None:
        """As `Stage.work`."""
        from fae.models.registry import sketch_model

        packed, hot_set = PACK.open(run), CALIBRATE.open(run)
        check_ranks(run.recipe, run.device(), run.ranks.place.world, run.ranks.place.local_world)
        check_batches(packed, hot_set.layout, num_inputs=INGEST.open(run).num_inputs)
        require_enough_memory(
            run, packed, hot_set, sketch_model(run.recipe.model, hot_set.layout.features, packed.num_dense)
        )
        parent = run.parent()
        if not is_current(path, plan) and not continues(run.out, plan):
            set_aside(run.out)
        if parent and read_parent_test(run.out, parent, INGEST.open(run)) is None:
            evaluate_parent(parent, INGEST.open(run), run.out, device=run.device())
        with run.ranks.joined() as group:
            assert group is not None
            self.train(run, plan, group)

    def train(self, run: RunContext, plan: Plan, group: Group) -> None:
        """Train as one rank of a group; the first one alone writes.

        Raises
        ------
        FaeError
            If ranks differ, one of them lacks the memory, or the training fails.
        """
        from fae.models.registry import build_model
        from fae.training.trainer import Trainer

        packed, hot_set, train, path = PACK.open(run), CALIBRATE.open(run), run.recipe.train, self.path(run)
        if group.world > 1:
            group.agree({"made from": plan.parents, **plan.parameters}, "recipe")
            require_memory_of_each(run, packed, hot_set, group)
            if group.why_gathered:
                whose = "each host to the others" if group.wire == "hosts" else "ranks from GPU to GPU"
                say(f"train: NCCL copies the sums of {whose}, since {group.why_gathered}")
        model = build_model(run.recipe.model, hot_set.layout.features, packed.num_dense, seed=train.seed)
        embeddings = fresh_embeddings(run, hot_set, group=group)
        model = model.to(embeddings.device)
        parent, goes_further = run.parent(), continues(run.out, plan)
        replaces = not is_current(path, plan)
        trainer = Trainer(
            model, embeddings, packed, train, folder=run.out, plan=plan, log=INGEST.open(run), callbacks=run.callbacks,
            on_replace=(lambda: clear_for_training(run.out, plan, continued=goes_further)) if replaces else None,
        )  # fmt: skip
        if parent and not goes_further:
            from fae.checkpoint.continuation import load_parent

            say(f"train: continuing {parent.checkpoint}")
            load_parent(parent, model, trainer.dense_optimizer, embeddings, seed=train.seed)
        if train.rows_from is not None and not goes_further and replaces:
            from fae.checkpoint.pretrained_rows import find_rows, import_rows

            import_rows(find_rows(train.rows_from, run.recipe.base), INGEST.open(run), embeddings)
        trainer.fit()

    def open(self, run: RunContext) -> Manifest:
        """As `Stage.open`; tensors are loaded by `fae.load_tables` and `fae.load_dense`."""
        return open_checkpoint(self.path(run))

    def is_finished(self, run: RunContext) -> bool:
        """As `Stage.is_finished`: it may lie in the middle of training, or lack the groups that are wanted now."""
        progress = read_progress(self.path(run))
        return bool(progress["complete"]) and has_groups(progress["result"], run.recipe.train.group_by)

    def earlier_seconds(self, run: RunContext, plan: Plan) -> float:
        """As `Stage.earlier_seconds`, up to the last checkpoint of each process."""
        if not continues(run.out, plan):
            return 0.0
        return float(read_progress(self.path(run)).get("stage_seconds", 0.0))

    def describe(self, run: RunContext) -> dict[str, Any]:
        """As `Stage.describe`."""
        result = read_result(self.path(run))
        test, train = result["test"], result["train"]
        rate = train["samples_per_second"]
        say(
            f"train: {format_count(train['num_inputs'])} inputs in {train['seconds']:.1f} s"
            + (f" ({format_count(rate)} inputs/s)" if rate else "")
            + (
                f"; test AUC {test['auc']:.5f}"
                if test["auc"] is not None
                else f"; test AUC not defined{_why_undefined(test)}"
            )
            + (f", log loss {test['log_loss']:.5f}" if test["log_loss"] is not None else "")
        )
        for rank, text in rank_lines(train.get("each_rank", ())):
            say(f"train: {rank}: {text}")
        if train.get("stopped_by"):
            say(f"train: it was stopped by {train['stopped_by']}; move {self.path(run)} away to train it anew")
        return result


def plan_training(run: RunContext, packed: Sequence[str], log: str) -> Plan:
    """What the training of a recipe is made from, by the fingerprints of its packed batches and of its log.

    Parameters
    ----------
    packed
        All fingerprints of the packed batches, one a format.

    Raises
    ------
    FaeError
        As `RunContext.parent` and `RunContext.device`.
    """
    parent = run.parent()
    return Plan(
        kind=KIND,
        format_version=FORMAT_VERSION,
        parameters={
            "model": run.recipe.model.to_parameters(),
            "train": run.recipe.train.to_parameters(),
            "device": run.device(),
        },
        parents={
            PACKED_KIND: trained_batches(run.out, packed),
            LOG_KIND: log,
            **({KIND: parent.manifest.fingerprint} if parent else {}),
            **_pretrained(run),
        },
        command=COMMAND,
    )


def _pretrained(run: RunContext) -> dict[str, str]:
    """The fingerprint of ``[train] rows_from``, where there is one."""
    name = run.recipe.train.rows_from
    if name is None:
        return {}
    from fae.checkpoint.pretrained_rows import find_rows, rows_fingerprint

    return {"rows": rows_fingerprint(find_rows(name, run.recipe.base))}


def require_model_memory(recipe: Recipe, log: ColumnarLog | None, ranks: int = 1) -> None:
    """Refuse a model that host memory, where it is made, cannot hold: before any stage starts.

    Parameters
    ----------
    log
        A log that is columnar already; None takes the columns that the recipe names.
    ranks
        How many processes of this host make it, each for itself.

    Raises
    ------
    BudgetError
        With its size.
    """
    features, free = log.features if log else named_features(recipe), available_bytes()
    num_dense = len(log.dense_names if log else recipe.log.dense_columns())
    if ranks * BYTES_OF_WEIGHT * most_weights(recipe.model, features, num_dense) <= free:
        return  # without torch, which takes seconds to import
    from fae.models.registry import sketch_model
    from fae.training.dense import dense_bytes

    model = sketch_model(recipe.model, features, num_dense)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    needed = dense_bytes(recipe.train.optimizer, model)
    if free and ranks * needed > free:
        raise BudgetError(
            f"[model] {recipe.model.name} has {format_count(num_weights)} dense weights, which take "
            f"{format_bytes(needed)} with gradients and optimizer state{times_ranks(needed, ranks)}; "
            f"{format_bytes(free)} of host memory are available; make the widths of its layers smaller"
            f"{', or start fewer ranks' if ranks > 1 else ''}"
        )


def _why_undefined(test: Mapping[str, Any]) -> str:
    """Why the AUC of these metrics is null, behind a colon."""
    rate = test.get("label_rate")
    if rate is None:
        return ": the test split is empty"
    return f": every label of the test split is {rate:.0f}" if rate in (0, 1) else ""


def require_enough_memory(run: RunContext, packed: PackedDataset, hot_set: HotSet, model: nn.Module) -> None:
    """Print what training will take, and refuse what cannot fit on this host and its first GPU, before it is allocated.

    Raises
    ------
    BudgetError
        If it does not fit; it names what is needed, what is free, and the largest budget that fits.
    """
    from fae.embedding.memory_plan import require_memory

    placement, on_gpu, ranks = run.recipe.train.placement, run.device() == "cuda", run.ranks.place.local_world
    needs = _planned_memory(run, packed, hot_set, model)
    each = f", on each of {ranks} ranks of this host; of memory that all of them map, each has 1/{ranks}" * (ranks > 1)
    say(f"train: {placement} takes {needs.describe('the GPU' if on_gpu else 'the CPU as device')}{each}")
    if placement == "spread" and run.ranks.place.world == 1:
        say(
            'train: with one rank "spread" keeps every row on its device, as "device" does; with --gpus 2 each row '
            "that is not hot is on one of two"
        )
    gpu, free = _gpu_of_process() if on_gpu else ("", None)
    require_memory(needs, placement, device_free=free, host_free=available_bytes(), ranks=ranks, gpu=gpu)


def require_memory_of_each(run: RunContext, packed: PackedDataset, hot_set: HotSet, group: Group) -> None:
    """Refuse what cannot fit on the GPU of any rank, or on another host than that of rank 0.

    All ranks call it together. Where a collective copies the sums of GPUs, the copies are counted, too; and where ranks
    of one host turn out not to share its memory, all rows of each.

    Raises
    ------
    CommonFault
        With the line of the first rank that lacks memory: the number of its GPU and its host, and what is free there.
    """
    from fae.distributed.ends import CommonFault
    from fae.embedding.memory_plan import require_memory
    from fae.models.registry import sketch_model

    train, on_gpu, host = run.recipe.train, run.device() == "cuda", group.hosts[group.rank]
    is_elsewhere, is_apart, line = host != group.hosts[0], on_gpu and group.wire in ("gather", "hosts"), ""
    shares_host = group.meeting is not None  # unknown before ranks have met
    if on_gpu or is_elsewhere or not shares_host:
        model = sketch_model(run.recipe.model, hot_set.layout.features, packed.num_dense)
        gpu, free = _gpu_of_process() if on_gpu else ("", None)
        try:
            require_memory(
                _planned_memory(run, packed, hot_set, model, group),
                train.placement, device_free=free,
                host_free=available_bytes() if is_elsewhere or is_apart or not shares_host else 0,
                ranks=run.ranks.place.local_world, gpu=f"{gpu} of {host}, that of rank {group.rank}",
            )  # fmt: skip
        except BudgetError as error:
            line = f"on {host}: {error}" if is_elsewhere else str(error)
    if found := next((each for each in group.gather_json(line, "whether every rank has the memory") if each), ""):
        raise CommonFault(found)


def _planned_memory(
    run: RunContext,
    packed: PackedDataset,
    hot_set: HotSet,
    model: nn.Module,
    group: Group | None = None,
) -> MemoryPlan:
    """What each rank takes; before ranks have met, as their `group`, where they reach one another as well as can be."""
    from fae.distributed.dense_sums import dense_sums_bytes
    from fae.distributed.group import Group
    from fae.embedding.memory_request import MemoryRequest
    from fae.embedding.placements import find_placement
    from fae.training.dense import dense_bytes, dense_of_hosts_bytes, dense_slices_bytes, gathered_dense_bytes
    from fae.training.real_inputs import fit_in_memory, rounds_dense

    train, on_gpu, splits = run.recipe.train, run.device() == "cuda", (packed.train, packed.validation, packed.test)
    place, num_weights = run.ranks.place, sum(parameter.numel() for parameter in model.parameters())
    world, is_one_host = place.world, not place.has_other_hosts
    if group is None:
        wire = "peer" if is_one_host else "hosts" if place.has_even_hosts else "gather"
        num_hosts = world // place.local_world if on_gpu and wire == "hosts" else 1
    else:
        wire, num_hosts = group.wire or "peer", group.slices.num_hosts
    gathered = on_gpu and wire == "gather"
    dense = dense_bytes(train.optimizer, model, flat=on_gpu, bf16=on_gpu and train.precision == "bf16")
    slices = replace(Group(world=world, reproducible=train.reproducible).slices, num_hosts=num_hosts)
    dense += dense_slices_bytes(model, slices) if on_gpu else dense_sums_bytes(num_weights, slices)
    dense += dense_of_hosts_bytes(model, slices)
    rounds = on_gpu and rounds_dense(model, train.precision) and fit_in_memory(splits, packed.batch_size)
    request = MemoryRequest(
        hot_set=hot_set, optimizer=train.optimizer, splits=splits, on_gpu=on_gpu, dense_bytes=dense, world=world,
        num_hosts=num_hosts, reproducible=train.reproducible, have_rows_together=not gathered,
        shares_host=is_one_host and (group is None or group.meeting is not None), rounds_dense=rounds,
    )  # fmt: skip
    needs = find_placement(train.placement).plan(request)
    if not gathered:
        return needs
    copies = gathered_dense_bytes(model, world)
    if train.placement != "hybrid":  # whose row sums are in host memory
        copies += request.gathered_sums
    return replace(needs, device_work=needs.device_work + copies)


def _gpu_of_process() -> tuple[str, int]:
    """The GPU of this process in words, and the bytes that are free there."""
    from fae.distributed.devices import gpu_with_free_bytes

    number, free = gpu_with_free_bytes()
    return f"GPU {number}", free


def fresh_embeddings(
    run: RunContext, hot_set: HotSet, device: str | None = None, group: Group | None = None
) -> Embeddings:
    """Embeddings of the recipe's placement, with their first values, on one rank of a group."""
    from fae.embedding.placements import make_embeddings
    from fae.streaming.row_store import RowOptimizer

    train = run.recipe.train
    optimizer = RowOptimizer(
        name=train.optimizer, learning_rate=train.learning_rate, weight_decay=train.row_weight_decay
    )
    device = device or (group.device if group and group.world > 1 else run.device())
    # On a GPU the rows of a run that trained so on CPUs may be opened under any placement.
    reproducible = train.reproducible and (device == "cpu" or train.placement not in ONLY_ON_CPUS_REPRODUCIBLE)
    embeddings = make_embeddings(
        train.placement, hot_set, optimizer, device=device, group=group, reproducible=reproducible
    )
    embeddings.initialise(train.seed)
    return embeddings


TRAIN = TrainStage()
