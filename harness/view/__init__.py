"""The explorer: pages on this machine's loopback that are made out of the store, which is only ever read."""
