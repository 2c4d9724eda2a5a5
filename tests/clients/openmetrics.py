"""Reads an OpenMetrics page from standard input with Prometheus' own parser, which refuses what the format forbids.

Prints {sample name: sum of its values} as JSON.
"""

import collections
import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

sums = collections.Counter()
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        sums[sample.name] += sample.value
print(json.dumps(sums))
