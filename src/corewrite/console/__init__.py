"""What a person sees: HTML pages, tables on a terminal, progress bars."""

from corewrite.console.gate_page import render_gate
from corewrite.console.progress import ProgressSteps
from corewrite.console.report import render_report
from corewrite.console.terminal import print_gate, print_summary
from corewrite.console.weeks import render_weeks

__all__ = ["ProgressSteps", "print_gate", "print_summary", "render_gate", "render_report", "render_weeks"]
