"""What a person sees: the HTML report, the terminal table, progress bars."""

from corewrite.console.progress import ProgressSteps
from corewrite.console.report import render_report
from corewrite.console.terminal import print_summary

__all__ = ["ProgressSteps", "print_summary", "render_report"]
