"""What an agent did, step by step, from its calls alone: no framework's log is read.

Standard library only and nothing of the store: the gateway uses the same code while a run goes on.
"""
