"""Decisions that a line can trust: calibrated, in sets that hold the truth, with a right to say no.

No torch here but in what fits a rule: the gateway decides without it.
"""
