import inspect
import re
import shlex
from pathlib import Path

import pytest

from powercap_simulator import commands, demo
from powercap_simulator.cluster import SimulatedCluster
from powercap_simulator.scenario_file import read_scenario

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for source in blocks("python"):
        exec(compile(source, str(PAGE), "exec"), {})

    watts = [float(word) for word in capsys.readouterr().out.split()]
    assert all(5_000 < value < 25_000 for value in watts)


def test_the_example_scenario_is_read_and_runs(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "power_load_curves.csv").write_text(
        "curve_id,model,gpu,gpus_per_replica,output_tokens_per_s,power_w,tpot_s\n"
        "Qwen3-8B|H100x1,m,H100,1,1000,450,0.01\nQwen3-8B|H100x1,m,H100,1,8000,620,0.04\n"
    )
    (tmp_path / "trace.csv").write_text(
        "time_s,requests_per_s,prompt_tokens_per_request_mean,output_tokens_per_request_mean\n"
        "0,10,100,200\n600,20,100,200\n"
    )

    cluster = SimulatedCluster(read_scenario(tmp_path / "scenario.yaml"), seed=1)
    cluster.step(600.0)

    assert float(cluster.last.served.served_tokens.min()) > 0


def test_the_commands_shown_have_the_options_shown() -> None:
    functions = {"simulate": commands.simulate, "demo": demo.command}
    for line in filter(None, "\n".join(blocks("sh")).splitlines()):
        program, name, *words = shlex.split(line)
        known = {
            f"--{one.replace('_', '-')}" for one in inspect.signature(functions[name]).parameters
        }
        assert program == "powercap"
        assert {word for word in words if word.startswith("--")} <= known
