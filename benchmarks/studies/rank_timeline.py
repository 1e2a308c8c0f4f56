"""What a step of several GPUs takes beside one of one: every kernel of captured steps, on rank 0.

    python benchmarks/studies/rank_timeline.py [CASE ...] [--ranks 2] [--inputs N] --out FILE

Cases and contenders are those of `ranks`. Each contender trains turns of 300 and of 1,200 steps, whose difference is
what it takes to begin and to end a stream, and then 40 steps under torch's profiler: for each kernel and copy, the
median microseconds from the end of the step before to its begin, and how long it takes. Kernels of different streams
lie above one another. The profiler makes a step some microseconds longer. Writes FILE.
"""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

from torch.profiler import ProfilerActivity, profile

import ranks

from rank_data import CASES

END = "_dense_update_kernel"
"""The last kernel of a step."""
_TURNS, _PROFILED = (300, 300, 1200, 1200), 40
_NAME = 60  # characters


def measure(name: str, data: Any, group: Any, links: Any, options: Namespace) -> list[dict[str, Any]]:
    """In place of `ranks.measure`: both contenders of a case, one after the other."""
    found = []
    contenders, _ = ranks.make_contenders(CASES[name], data, group, links)
    for who in ("one", "ranks"):
        contender = contenders[who]
        contender.run(options.steps)
        turns = [[steps, 1e6 * contender.run(steps) / steps] for steps in _TURNS]
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            contender.run(_PROFILED)
        row = {"case": name, "contender": who, "turns": turns, **timeline(profiled)}
        found.append(row)
        print(f"{name} {who}: {turns[-1][1]:.1f} us a step, profiled {row['step_us']:.1f}", flush=True)
        for begin, taken, kernel in row["kernels"] if group.is_first else ():
            print(f"{begin:9.1f} {taken:7.1f}  {kernel}", flush=True)
    return found


def timeline(profiled: Any) -> dict[str, Any]:
    """The kernels of the steps that have most often as many, by their begin."""
    events = sorted(
        (event.time_range.start, event.time_range.end - event.time_range.start, event.name[:_NAME])
        for event in profiled.events()
        if event.device_type.name == "CUDA"
    )
    ends = [place for place, (_, _, name) in enumerate(events) if END in name]
    steps = []
    for before, end in zip(ends[_PROFILED // 4 : -1], ends[_PROFILED // 4 + 1 :], strict=True):
        origin = events[before][0] + events[before][1]
        steps.append([(begin - origin, taken, name) for begin, taken, name in events[before + 1 : end + 1]])
    if not steps:  # of a rank that trains nothing
        return {"step_us": 0.0, "steps": 0, "kernels": []}
    size = statistics.mode(map(len, steps))
    alike = [step for step in steps if len(step) == size]
    kernels = [
        [statistics.median(step[place][0] for step in alike), statistics.median(step[place][1] for step in alike), name]
        for place, (_, _, name) in enumerate(alike[0])
    ]
    length = statistics.median(step[-1][0] + step[-1][1] for step in steps)
    return {"step_us": length, "steps": len(alike), "kernels": kernels}


if __name__ == "__main__":
    ranks.__doc__, ranks.measure = __doc__, measure
    ranks.line = lambda row: f"{row['case']} {row['contender']}: {row['step_us']:.1f} us a step under the profiler"
    ranks.HEADER = ""
    ranks.main()
