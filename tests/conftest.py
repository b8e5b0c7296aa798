"""Fixtures shared by all tests: the real servers, and the folders of real data and CRDs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import START_SECONDS, ControlPlane
from given_cluster import GivenCluster
from hypothesis import HealthCheck, settings
from lightkube import Client, KubeConfig, codecs
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import ServiceAccountToken

ROOT = Path(__file__).resolve().parents[1]
FETCH_SECONDS = 3600

# What a property claims does not hang on the machine's speed: a fresh checkout builds hypothesis'
# table of characters within the first example, which alone passed its limit.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def _folder_from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    if not value:
        return None
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{name} is {value}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of measured data; tests that need it are skipped without one."""
    folder = _folder_from_environment("POWERCAP_TEST_DATA")
    if folder is None:
        pytest.skip("POWERCAP_TEST_DATA names no folder of measured data")
    return folder


def _fetch(server: str) -> Path:
    """Return the folder of the server's binaries; fail, never skip, when there is none."""
    done = subprocess.run(
        [ROOT / "tests" / "servers" / "fetch.sh", server],
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"no {server} to test with:\n{done.stderr[-3000:]}")
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def prometheus_binaries() -> Path:
    """Return the folder that holds ``prometheus`` and ``promtool``."""
    return _fetch("prometheus")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane | GivenCluster]:
    """Run one real control plane for the whole test session, or use the given cluster."""
    given = os.environ.get("POWERCAP_TEST_KUBECONFIG")
    if given:
        yield GivenCluster(Path(given))
        return
    with ControlPlane(_fetch("kube"), users={"operator": ""}) as plane:
        yield plane


@pytest.fixture(scope="session")
def kube_admin_kubeconfig(control_plane: ControlPlane | GivenCluster) -> Path:
    """Return the administrator's kubeconfig."""
    return control_plane.kubeconfig("admin")


@pytest.fixture(scope="session")
def kube_admin(kube_admin_kubeconfig: Path) -> Iterator[Client]:
    """Return a client with the administrator's rights."""
    client = Client(config=KubeConfig.from_file(str(kube_admin_kubeconfig)))
    yield client
    client.close()


@pytest.fixture(scope="session")
def real_crds() -> Path | None:
    """Return the folder of others' real CRDs; None where none is given."""
    return _folder_from_environment("POWERCAP_TEST_CRDS")


@pytest.fixture(scope="session")
def crds(kube_admin: Client, real_crds: Path | None) -> dict[str, dict[str, Any]]:
    """Install the CRDs of KEDA and KServe (real ones where given) and our own, by name.

    There is no stand-in for KServe's: without the folder nothing of it is installed.
    """
    files = [ROOT / "deploy" / "crd.yaml", ROOT / "tests" / "data" / "crds" / "scaledobject.yaml"]
    if real_crds is not None:
        kserve = real_crds / "kserve" / "full" / "serving.kserve.io_inferenceservices.yaml"
        files[1:] = [real_crds / "keda" / "bases" / "keda.sh_scaledobjects.yaml", kserve]
    definitions: dict[str, dict[str, Any]] = {}
    for path in files:
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            if document:
                definitions[document["metadata"]["name"]] = document
    for document in definitions.values():
        try:
            kube_admin.create(CustomResourceDefinition.from_dict(document))
        except ApiError as error:
            if error.status.code != 409:
                raise
    for name, document in definitions.items():
        kube_admin.wait(CustomResourceDefinition, name, for_conditions=["Established"])
        _wait_until_listed(kube_admin, document["spec"])
    return definitions


def _wait_until_listed(client: Client, spec: dict[str, Any]) -> None:
    """Wait for the server to answer for a new kind: at first it says 404 or 429."""
    names = spec["names"]
    kind = (spec["group"], spec["versions"][0]["name"], names["kind"], names["plural"])
    is_namespaced = spec["scope"] == "Namespaced"
    create: Any = create_namespaced_resource if is_namespaced else create_global_resource
    where = {"namespace": "*"} if is_namespaced else {}
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            list(client.list(create(*kind), **where))
            return
        except ApiError as error:
            if error.status.code not in (404, 429) or time.monotonic() > end:
                raise
        time.sleep(0.1)


@pytest.fixture(scope="session")
def operator_kubeconfig(
    control_plane: ControlPlane | GivenCluster, kube_admin: Client, crds: object
) -> Path:
    """Return the kubeconfig of the shipped ServiceAccount, bound by the shipped rbac.yaml."""
    account = None
    for document in yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()):
        if not document:
            continue
        if document["kind"] == "ServiceAccount":
            account = document["metadata"]
            _create(kube_admin, {"apiVersion": "v1", "kind": "Namespace"}, account["namespace"])
        resource = codecs.from_dict(document)
        try:
            kube_admin.create(resource)
        except ApiError as error:
            if error.status.code != 409:
                raise
    assert account is not None, "deploy/rbac.yaml ships no ServiceAccount"
    token = kube_admin.create(
        ServiceAccountToken(
            metadata=ObjectMeta(),
            spec=TokenRequestSpec(audiences=[], expirationSeconds=7200),
        ),
        account["name"],
        namespace=account["namespace"],
    )
    return control_plane.kubeconfig_of_token("service-account", token.status.token)


def _create(client: Client, head: dict[str, str], name: str) -> None:
    try:
        client.create(codecs.from_dict({**head, "metadata": {"name": name}}))
    except ApiError as error:
        if error.status.code != 409:
            raise
