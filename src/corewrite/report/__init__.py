"""Output for people: HTML pages, tables on a terminal, progress bars."""

from corewrite.report.gate_page import render_gate
from corewrite.report.progress import ProgressSteps
from corewrite.report.report import render_report
from corewrite.report.terminal import print_gate, print_summary
from corewrite.report.weeks import render_weeks

__all__ = ["ProgressSteps", "print_gate", "print_summary", "render_gate", "render_report", "render_weeks"]
