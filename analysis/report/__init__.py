"""The report of sweeps: what is in it (`content` and the sections), and how it is written, a module a format."""
