"""The command line, where several ranks may share a GPU."""

from __future__ import annotations

import sys

from fae.cli.main import main
from one_gpu_ranks import gather_through_host_memory

if __name__ == "__main__":
    gather_through_host_memory()
    sys.exit(main())
