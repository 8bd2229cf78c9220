"""The README's figures are those of the newest report."""

from __future__ import annotations

import json

from bench import first_page


def test_the_readme_has_the_figures_of_the_report() -> None:
    document, text = json.loads(first_page.CONSUMER.read_text()), first_page.README.read_text()
    assert "<!-- table consumer -->" in text
    assert first_page.filled(text, document) == text, "run python -m bench.first_page"


def test_a_row_is_the_medians_of_its_runs() -> None:
    runs = [
        {"cpu_seconds": cpu, "wall_seconds": 2.0, "records": 2_000_000, "value_bytes": 4e8, "peak_memory_bytes": 2e8}
        for cpu in (3.0, 2.8, 9.0)
    ]
    assert first_page.table({"cases": {"plain": {"runs": runs}}}).splitlines()[2:] == [
        "| **ticklake**, gzip, everything on | 1.50 | 1,000,000 | 200 MB/s | 200 MB |"
    ]
