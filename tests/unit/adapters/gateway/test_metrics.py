from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from lloom.adapters.gateway.metrics import Metrics
from lloom.core.messages import Done


def told(metrics: Metrics) -> dict[str, float]:
    """Every sample that a reader of Prometheus' format finds."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found[" ".join([sample.name, *sample.labels.values()])] = sample.value
    return found


def test_each_path_and_status_is_counted_by_itself() -> None:
    metrics = Metrics()
    for path, status in (("/a", 200), ("/a", 200), ("/a", 404), ("/b", 200)):
        metrics.answered(path, status, 1)
    found = told(metrics)
    assert (found["lloom_http_requests_total /a 200"], found["lloom_http_requests_total /a 404"]) == (2, 1)
    assert (found["lloom_http_request_seconds_count /a"], found["lloom_http_request_seconds_sum /a"]) == (3, 3)
    assert found["lloom_http_request_seconds_count /b"] == 1


def test_a_bucket_holds_what_took_at_most_its_bound() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.005, 0.006, 1000):
        metrics.first_token(seconds)
    found = told(metrics)
    bounds = ("0.005", "0.01", "600.0", "+Inf")
    assert [found[f"lloom_first_token_seconds_bucket {bound}"] for bound in bounds] == [2, 3, 3, 4]


def test_tokens_and_what_runs_are_told_before_there_are_any() -> None:
    metrics = Metrics()
    assert [value for name, value in told(metrics).items() if "bucket" not in name] == [0] * 5
    metrics.tokens(Done(3, 4))
    metrics.running += 1
    found = told(metrics)
    assert (found["lloom_tokens_total input"], found["lloom_tokens_total output"]) == (3, 4)
    assert found["lloom_requests_running"] == 1
