"""A throwaway cluster that somebody else runs, instead of a control plane of our own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml


class GivenCluster:
    """The cluster of a kubeconfig, opt-in; refuses one that is not plainly meant for tests."""

    def __init__(self, kubeconfig: Path) -> None:
        self._path = kubeconfig
        self.folder = Path(tempfile.mkdtemp(prefix="powercap-given-"))
        config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
        context_name = config["current-context"]
        if not (context_name.startswith("kind-") or "test" in context_name):
            raise ValueError(
                f"the current context of {kubeconfig} is {context_name!r}; accepted: a name that "
                "starts with 'kind-' or contains 'test', so that no real cluster is touched"
            )
        context = _named(config["contexts"], context_name)["context"]
        self._cluster = _named(config["clusters"], context["cluster"])["cluster"]

    def kubeconfig(self, user: str = "admin") -> Path:
        """Return the given kubeconfig; there is no other user.

        Raises:
            ValueError: another user than ``admin`` is asked for.
        """
        if user != "admin":
            raise ValueError(f"a given cluster has no user {user!r}; use a token")
        return self._path

    def kubeconfig_of_token(self, name: str, token: str) -> Path:
        """Write a kubeconfig that shows ``token`` and return its path."""
        path = self.folder / f"{name}.kubeconfig"
        context = {"cluster": "test", "user": name, "namespace": "default"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": self._cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path.write_text(json.dumps(config))
        return path


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
