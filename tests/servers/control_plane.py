"""A throwaway Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager.

Binaries come from the folder that ``fetch.sh kube`` prints. Everything listens on 127.0.0.1, with
RBAC on and anonymous access off; each user has a token and a kubeconfig of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

START_SECONDS = 90.0
STOP_SECONDS = 20.0

_EXTENSIONS = """\
[req]
distinguished_name=dn
[dn]
[ca]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
[server]
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc
"""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """Ask Linux to kill this child when the test process dies, even of SIGKILL."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class ControlPlane:
    """One control plane; use as a context manager.

    Args:
        binaries: folder with ``etcd``, ``kube-apiserver`` and ``kube-controller-manager``.
        users: user name to comma-separated groups; ``admin`` is always there.
        controllers: the controller-manager's ``--controllers``, or None to run none. By default
            without the HPA's, which has no metrics here and whose part the tests play.
    """

    def __init__(
        self,
        binaries: Path,
        *,
        users: dict[str, str] | None = None,
        controllers: str | None = "*,-horizontalpodautoscaling",
    ) -> None:
        self.binaries = binaries
        self.controllers = controllers
        self.users = {"admin": "system:masters", **(users or {})}
        self.tokens = {user: secrets.token_hex(16) for user in self.users}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path()
        self.url = ""

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all processes and wait until the API server is ready.

        Raises:
            RuntimeError: a process ended; its log's last lines are in the message.
            TimeoutError: a process did not become ready.
        """
        memory = Path("/dev/shm")
        base = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="powercap-kube-", dir=base))
        try:
            self._make_certificates()
            self._start_etcd()
            self._start_apiserver()
            if self.controllers:
                self._start_controllers(self.controllers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes, last started first, and remove the folder."""
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kubeconfig(self, user: str = "admin") -> Path:
        """Write the kubeconfig of ``user`` and return its path."""
        return self.kubeconfig_of_token(user, self.tokens[user])

    def kubeconfig_of_token(self, name: str, token: str) -> Path:
        """Write a kubeconfig that shows ``token`` and return its path."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")}
        context = {"cluster": "test", "user": name, "namespace": "default"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path.write_text(json.dumps(config))
        return path

    def version(self) -> tuple[int, int]:
        """Return the API server's (major, minor)."""
        answer = json.loads(self._get(f"{self.url}/version"))
        return int(answer["major"]), int(answer["minor"].rstrip("+"))

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._etcd_url = client
        self._spawn(
            "etcd",
            "--name=test",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
        )
        self._wait(f"{client}/health")

    def _start_apiserver(self) -> None:
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        tokens = self.folder / "tokens.csv"
        tokens.write_text(
            "".join(
                f'{self.tokens[user]},{user},{user},"{groups}"\n'
                for user, groups in self.users.items()
            )
        )
        tokens.chmod(0o600)
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            "--tls-cert-file=server.crt",
            "--tls-private-key-file=server.key",
            "--client-ca-file=ca.crt",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=sa.key",
            "--service-account-key-file=sa.key",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            *([] if self.controllers else ["--disable-admission-plugins=ServiceAccount"]),
        )
        self._wait(f"{self.url}/readyz")

    def _start_controllers(self, controllers: str) -> None:
        # Before 1.24 it also opens plain *:10252, and a second cluster's one dies of that.
        plain_port_off = ["--port=0"] if self.version() < (1, 24) else []
        self._spawn(
            "kube-controller-manager",
            *plain_port_off,
            f"--kubeconfig={self.kubeconfig('admin')}",
            "--leader-elect=false",
            f"--controllers={controllers}",
            "--service-account-private-key-file=sa.key",
            "--root-ca-file=ca.crt",
            "--use-service-account-credentials=false",
            f"--secure-port={free_port()}",
            "--bind-address=127.0.0.1",
        )

    def _make_certificates(self) -> None:
        (self.folder / "extensions.cnf").write_text(_EXTENSIONS)
        for name in ("ca", "server", "sa"):
            self._openssl(f"ecparam -name prime256v1 -genkey -noout -out {name}.key")
        self._openssl(
            "req -x509 -new -key ca.key -days 2 -subj /CN=test-ca"
            " -config extensions.cnf -extensions ca -out ca.crt"
        )
        self._openssl(
            "req -new -key server.key -subj /CN=kube-apiserver -config extensions.cnf"
            " -out server.csr"
        )
        self._openssl(
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2"
            " -extfile extensions.cnf -extensions server -out server.crt"
        )

    def _openssl(self, arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments.split()],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=30,
        )

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [self.binaries / name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )

    def _get(self, url: str) -> bytes:
        request = urllib.request.Request(
            url, headers={"Authorization": f"Bearer {self.tokens['admin']}"}
        )
        context = None
        if url.startswith("https"):
            context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            body: bytes = answer.read()
        return body

    def _wait(self, url: str) -> None:
        end = time.monotonic() + START_SECONDS
        last: Exception | None = None
        while time.monotonic() < end:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    log = (self.folder / f"{name}.log").read_text(errors="replace")
                    raise RuntimeError(f"{name} ended with {process.returncode}: {log[-2000:]}")
            try:
                self._get(url)
                return
            except urllib.error.HTTPError as error:
                # It is an answer too, and holds the socket open.
                error.close()
                last = error
            except OSError as error:
                last = error
            time.sleep(0.05)
        raise TimeoutError(f"{url} not ready after {START_SECONDS} s: {last}")
