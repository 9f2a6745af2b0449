"""Sphinx configuration."""

project = "Shotline"
author = "The Shotline developers"
extensions = ["myst_parser"]
html_theme = "furo"
myst_heading_anchors = 3
