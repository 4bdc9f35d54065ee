"""Statistics of runs: what is told of a cell (agent and model), and how cells compare. Tasks are the unit: runs of one
task are alike, so intervals and tests are over tasks, never over runs."""
