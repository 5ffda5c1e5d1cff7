"""The early-stopping estimate against LoadGen, MLPerf's own load generator, on the same queries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeres.measurement.statistics import early_stopping

lg = pytest.importorskip("mlperf_loadgen", reason="install mlcommons-loadgen to compare with it")


def single_stream(queries: int, folder: Path) -> tuple[list[int], str]:
    """Run LoadGen with a model that does nothing; its latencies in ns and its summary."""

    def issue(samples: list) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])

    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = queries
    settings.min_duration_ms = 0
    log = lg.LogSettings()
    log.enable_trace = True
    log.log_output.outdir, log.log_output.copy_summary_to_stdout = str(folder), False
    system = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(4, 4, lambda samples: None, lambda samples: None)
    lg.StartTestWithLogSettings(system, library, settings, log)
    lg.DestroyQSL(library)
    lg.DestroySUT(system)
    trace = (folder / "mlperf_log_trace.json").read_text("utf-8")
    times = re.findall(r'"issue_start_ns":(\d+),"complete_ns":(\d+)', trace)
    summary = (folder / "mlperf_log_summary.txt").read_text("utf-8")
    return [int(end) - int(start) for start, end in times], summary


@pytest.mark.parametrize("queries", [64, 300, 962, 1024])
def test_the_estimate_is_loadgens(queries: int, tmp_path: Path) -> None:
    samples, summary = single_stream(queries, tmp_path)
    assert len(samples) == queries
    estimate, discarded = early_stopping(samples, 0.9)
    assert f"Would discard {discarded} highest latency queries" in summary
    assert f"Early stopping 90.0th percentile estimate: {estimate}\n" in summary
    p99, _ = early_stopping(samples, 0.99)
    reported = re.search(r"Early stopping 99.0th percentile estimate: (\d+)", summary)
    assert (int(reported[1]) if reported else None) == p99
