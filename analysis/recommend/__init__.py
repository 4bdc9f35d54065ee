"""Which agent and model to use under a budget, from what was measured: what there is to choose from (`measured`), the
choice for a budget of one task with its reasons (`decision`), and the choice for the next of many tasks (`chooser`)."""

from harness.analysis.recommend.chooser import Chooser
from harness.analysis.recommend.decision import Recommendation, Wanted, recommend
from harness.analysis.recommend.measured import NotComparable, Option, options

__all__ = ["Chooser", "NotComparable", "Option", "Recommendation", "Wanted", "options", "recommend"]
