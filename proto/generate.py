"""Regenerate the Python stubs from the .proto files (or check them with --check)."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
# Google's own types (Timestamp) come with the generator.
WELL_KNOWN = Path(grpc_tools.__file__).resolve().parent / "_proto"
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(out: Path) -> None:
    """Write the stubs of every .proto file below ``out``."""
    sources = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{WELL_KNOWN}",
        *(f"--{plugin}_out={out}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")),
        *sources,
    ]
    if protoc.main(arguments):
        raise SystemExit("protoc failed")


def stubs(root: Path) -> dict[str, Path]:
    """Map the relative name of each generated file below ``root`` to its path."""
    return {path.relative_to(root).as_posix(): path for p in PATTERNS for path in root.rglob(p)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare, write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        fresh_root = Path(directory)
        generate(fresh_root)
        fresh, committed = stubs(fresh_root), stubs(ROOT)
        stale = sorted(
            name
            for name in fresh.keys() | committed.keys()
            if name not in fresh
            or name not in committed
            or not filecmp.cmp(fresh[name], committed[name], shallow=False)
        )
    for name in stale:
        sys.stderr.write(f"out of date: proto/{name}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
