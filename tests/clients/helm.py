"""Renders a Helm chart with Helm's own SDK: `helm.py CHART VALUES-AS-JSON` prints the manifests, with the CRDs first.

Fails when the linter has more to say than advice, or when the values are not as the chart's schema wants them.
"""

import json
import sys
from pathlib import Path

import helm_python as helm

chart_path, values = sys.argv[1], json.loads(sys.argv[2])
INFO = 1
found = helm.lint(chart_path)
if found["errors"] or any(it["severity"] > INFO for it in found["messages"]):
    sys.exit(f"lint: {json.dumps(found, indent=2)}")
with helm.Chart.load(chart_path) as chart:
    chart.validate_schema(values)
    rendered = chart.render(values, name="derny", namespace="derny-system")
for crd in sorted(Path(chart_path, "crds").glob("*.yaml")):
    print(f"---\n{crd.read_text()}")
for path, text in sorted(rendered.items()):
    if path.endswith(".yaml") and text.strip():
        print(f"---\n{text}")
