"""The fifth stage: schedule, step, loop, evaluation."""
