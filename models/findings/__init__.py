"""The data doctor: what is wrong with a set of labelled images. Runs without the service.

Each check stands in a file of its own; `models.findings.examine` runs them all.
"""
