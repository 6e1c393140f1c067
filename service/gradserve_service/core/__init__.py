"""The pure part of the service: the arithmetic of optimizers (floor 1) and the rules of a run (floor 2).

Nothing here reads a clock, draws a random number, opens a file or starts a thread: work that can be shared between
threads is handed out as a list of tasks to a `RunAll` that the caller brings.
"""
