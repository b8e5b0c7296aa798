"""One typed configuration: which layer wins, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from powercap_planner.config import ServeConfig, load
from powercap_planner.errors import InputFileError

FLAGS = {"prometheus.url": "http://flag:9090"}


def written(folder: Path, text: str) -> Path:
    path = folder / "planner.yaml"
    path.write_text(text)
    return path


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    file = written(
        tmp_path,
        "refresh_seconds: 11\nrefit_seconds: 12\nstep_seconds: 60\n"
        "prometheus: {url: 'http://file:9090', timeout_seconds: 3}\n",
    )
    environment = {"POWERCAP_REFIT_SECONDS": "22", "POWERCAP_STEP_SECONDS": "120"}

    config = load(file=file, environment=environment, flags={**FLAGS, "step_seconds": 30})

    assert config.prometheus.url == "http://flag:9090"
    assert config.prometheus.timeout_seconds == 3
    assert (config.refresh_seconds, config.refit_seconds, config.step_seconds) == (11, 22, 30)
    assert config.stale_after_seconds == ServeConfig(observations="x").stale_after_seconds


def test_nested_names_join_with_an_underscore_in_the_environment():
    environment = {
        "POWERCAP_PROMETHEUS_URL": "http://a:1",
        "POWERCAP_PROMETHEUS_LABELS_KUBE_POD": "exported_pod",
        "POWERCAP_GRID_PRICE_PER_MWH": "-12.5",
        "POWERCAP_TEST_DATA": "/not/ours",
    }

    config = load(file=None, environment=environment, flags={})

    assert config.prometheus.url == "http://a:1"
    assert config.prometheus.labels.kube_pod == "exported_pod"
    assert config.grid.price_per_mwh == -12.5


def test_flag_that_is_not_given_overrides_nothing(tmp_path):
    file = written(tmp_path, "prometheus: {url: 'http://file:9090'}\n")

    config = load(file=file, environment={}, flags={"prometheus.url": None})

    assert config.prometheus.url == "http://file:9090"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("promtheus: {}", "promtheus: is unknown; accepted: listen", id="misspelt"),
        pytest.param("prometheus: {urL: x}", r"prometheus\.urL: is unknown", id="nested"),
        pytest.param("prometheus: 9090", "accepted: a mapping", id="not-a-mapping"),
        pytest.param("refresh_seconds: soon", "refresh_seconds: is 'soon'", id="not-a-number"),
        pytest.param("refresh_seconds: true", "refresh_seconds: is True", id="boolean"),
        pytest.param("refresh_seconds: .nan", "a finite number", id="nan"),
        pytest.param("refresh_seconds: 0", "accepted: more than 0", id="zero"),
        pytest.param("listen: 50051", "listen: is 50051; accepted: text", id="not-text"),
        pytest.param("step_seconds: 7.5", "whole seconds", id="fraction-of-a-second"),
        pytest.param("history_seconds: 10", "at least two steps", id="short-history"),
        pytest.param("observations: x.json", "both are given", id="two-sources"),
        pytest.param("observations_clock: wall", "accepted: system, file", id="clock"),
        pytest.param("tls_key: k.pem", "both or neither", id="half-tls"),
        pytest.param("- a list", "holds a list", id="list"),
        pytest.param("a: b: c", "not YAML", id="not-yaml"),
    ],
)
def test_mistake_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(InputFileError, match=message):
        load(file=written(tmp_path, text), environment={}, flags=FLAGS)


def test_prometheus_without_a_scheme_is_refused():
    with pytest.raises(InputFileError, match=r"prometheus\.url: is 'prometheus:9090'"):
        load(file=None, environment={}, flags={"prometheus.url": "prometheus:9090"})


def test_no_source_is_refused():
    with pytest.raises(InputFileError, match="none is given"):
        load(file=None, environment={}, flags={})


def test_environment_that_is_no_number_is_named():
    with pytest.raises(InputFileError, match="POWERCAP_REFIT_SECONDS: is 'often'"):
        load(file=None, environment={"POWERCAP_REFIT_SECONDS": "often"}, flags=FLAGS)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputFileError, match=r"nowhere\.yaml: cannot be read"):
        load(file=tmp_path / "nowhere.yaml", environment={}, flags=FLAGS)
