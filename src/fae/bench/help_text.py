"""The text of ``fae bench paper --help``."""

PAPER = """\
One of the paper's workloads over every placement, on this machine:

  rmc1   TBSM, Taobao-shaped log        5.2 M rows of dim 16, Adagrad, batches of 256
  rmc2   DLRM, Criteo-Kaggle-shaped    33.8 M rows of dim 16, SGD, batches of 1,024
  rmc3   DLRM, Criteo-Terabyte-shaped 187.8 M rows of dim 64, SGD, batches of 2,048 (48 GB of host memory)

Contenders, all with the same model, optimizer, batch size and precision:

  plain cpu     plain PyTorch, nn.EmbeddingBag(sparse=True), CPU only: the paper's first baseline
  plain hybrid  the same, dense part on the GPU: the paper's second baseline
  cpu, hybrid   the same two with FAE's CPU kernels: our strongest baselines
  paper         FAE as the paper describes it: threshold selection, adaptive order, swaps
  tiered        FAE as it is here: interleaved order, cold rows streamed; by default with the hot set of paper
  tiered shuffled  the same with mixed batches, in random order
  device        every row on the GPU, where it fits

They take turns, --rounds times; a sample is --seconds long and --min-batches at least, and is extrapolated to an epoch
(the record says from how many batches). Then one epoch is trained to its end in each of the orders shuffled, adaptive
and interleaved, for AUC and log loss after the same number of inputs, for the swaps, and for the bytes and seconds of
every phase. Placement never changes the mathematics, so an order's accuracy is that of every contender that uses it.

The log is synthetic (made once, in DIR/log), with all rows of the real log's tables; --log takes one of your own (the
log/ of a run folder). By default the budget is the recipe's in proportion to the rows that the log touches, plus
staging: a log this short would fit whole otherwise. Without a GPU, contenders that need one are left out, and the
record says why.

  fae bench paper rmc2                                    the whole table: minutes on a GPU machine
  fae bench paper rmc2 --scale 0.01 --inputs 100000 --batch-sizes 1024      a laptop
  fae bench paper rmc3 --accuracy none                    speed only
  fae bench paper rmc2 --gpus 4                           1, 2 and 4 GPUs, too
  fae report runs/bench_rmc2                              draw it

With --gpus N, as in the paper, 1, 2 and 4 GPUs, powers of two up to N: weak scaling, the table's batch on each GPU, so
the whole batch is W times as large. In turns with one GPU: inputs/s, the ratio over one GPU of the same contender, and
over hybrid, the data-parallel baseline, on as many GPUs. Plain PyTorch and accuracy stay those of one GPU. Ranks are
processes, which have host rows together, once a host; one that fails ends all with one line.
With --device cpu they are N processes of the CPU: what GPUs do, no measure of their speed.

A sample that is there is not taken again: a command that was killed continues when it is typed again.
Writes DIR/paper.json (docs/guide/bench.md describes it).
"""
