"""The judge of mutants: what it knows one by, and that every explanation says why."""

import yaml

from tests.mutation.survivors import EXPLAINED, changed_lines, explained, function_of

DIFF = """# sherlock_data.timing.xǁClockǁtime__mutmut_2: survived
--- sherlock_data/timing.py
+++ sherlock_data/timing.py
@@ -1,3 +1,3 @@
 def time(self) -> FloatArray:
-    return self.tr() * self.repetition_time_s
+    return self.tr() / self.repetition_time_s"""


def test_a_mutant_is_known_by_its_function_and_its_changed_lines():
    assert function_of("sherlock_data.timing.xǁClockǁtime__mutmut_2") == (
        "sherlock_data.timing.Clock.time"
    )
    assert function_of("sherlock_data.splits.x__near__mutmut_14") == "sherlock_data.splits._near"
    assert changed_lines(DIFF) == (
        "- return self.tr() * self.repetition_time_s\n+ return self.tr() / self.repetition_time_s"
    )


def test_every_explanation_says_why():
    groups = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8"))
    assert all(group["why"] and group["changes"] for group in groups)
    assert len(explained()) == sum(len(group["changes"]) for group in groups)
