"""The report of a tuning: one HTML page that a line engineer shows in a meeting."""

from models.report.data import Mistake, ReportData
from models.report.page import render_report

__all__ = ["Mistake", "ReportData", "render_report"]
