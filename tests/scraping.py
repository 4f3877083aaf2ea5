"""Reading an agent's metrics as Prometheus does."""

from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, ...], float]


def scrape(port: int, host: str = "127.0.0.1") -> Samples:
    """All samples, each by its name and the values of its labels in the order of their names."""
    with build_opener(ProxyHandler({})).open(f"http://{host}:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def find_steps(samples: Samples, verb: str) -> set[str]:
    """The steps of a verb that were counted at least once."""
    counted = "sriovdp_cni_step_duration_seconds_count"
    return {key[1] for key, value in samples.items() if key[0] == counted and key[2] == verb and value}
