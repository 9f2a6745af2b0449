"""The report of a tuning: one HTML page, or JSON, that a line engineer shows in a meeting.

No torch here but in `models.report.pictures`, which draws what the page shows: the gateway renders.
"""

from models.language import LanguageCode
from models.report.data import Heat, Mistake, ReportData
from models.report.page import render_report

__all__ = ["Heat", "LanguageCode", "Mistake", "ReportData", "render_report"]
