"""The layout keeps its promises: every package ships, nothing hides the standard library."""

import configparser
import operator
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ("proto", "solver", "planner", "operator", "simulator")


def test_every_package_is_listed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT / name).parts)
        for name in COMPONENTS
        for path in (ROOT / name).rglob("__init__.py")
    }

    assert found == listed


def test_component_folders_are_not_packages():
    for name in COMPONENTS:
        assert not (ROOT / name / "__init__.py").exists()
        assert not list((ROOT / name).rglob("conftest.py"))
        assert not list((ROOT / name).rglob("test_*.py"))

    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_operator_is_the_standard_library():
    assert Path(operator.__file__).parent == Path(sysconfig.get_path("stdlib"))
