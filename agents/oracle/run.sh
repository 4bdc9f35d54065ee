#!/bin/sh
# The harness puts the solution here for the agent that ships with it under this name, and for no other.
bash /opt/harness/solution/solve.sh || exit
echo '{"status": "submitted"}' > "$HARNESS_RESULT_FILE"
