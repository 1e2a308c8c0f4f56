"""Jobs on all threads."""

from __future__ import annotations

from typing import Any

import pytest

from fae.core.threads import run_jobs


def test_jobs_all_end_and_the_first_failure_is_reported() -> None:
    ended = []

    def job(index: int) -> Any:
        def run() -> None:
            ended.append(index)
            if index in (3, 5):
                raise ValueError(str(index))

        return run

    with pytest.raises(ValueError, match="3"):
        run_jobs([job(index) for index in range(8)])
    assert sorted(ended) == list(range(8))
