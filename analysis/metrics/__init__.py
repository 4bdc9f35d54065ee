"""What energy comes to: figures by agent and model, each with its unit, kind and coverage, or the reason why there is
none. Reads the store and nothing else.

Figures of different kind, coverage or machine are never added, averaged or compared. Definitions: docs/metrics.md.
"""
