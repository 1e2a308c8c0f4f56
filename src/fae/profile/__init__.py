"""The second stage: accesses of every row over a sample of the inputs."""
