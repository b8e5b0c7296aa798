# Builds a current Kubernetes API server, controller manager and etcd from their Go modules.
# Sourced by fetch.sh; about 9 minutes and 3 GB of temporary disk on two cores.
# Needs Go 1.25 or newer and a module proxy.
KUBE_VERSION=1.35.4
ETCD_VERSION=3.6.5

build() {
  local out=$1 tree kube_minor
  command -v go >/dev/null || { echo "no Go toolchain on PATH"; return 1; }
  go_is_at_least 25 || { echo "$(go version): 1.25 or newer is needed"; return 1; }
  export GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0 GOMODCACHE=$PWD/modules GOCACHE=$PWD/cache
  mkdir kube etcd
  tree=$(cd kube && go mod download -json "k8s.io/kubernetes@v$KUBE_VERSION" |
    sed -nE 's/^\t"Dir": "(.*)",$/\1/p') || return 1
  [ -n "$tree" ] || { echo "the module proxy has no k8s.io/kubernetes v$KUBE_VERSION"; return 1; }
  # The staging modules of the main tree are published apart, as v0.MINOR.PATCH.
  {
    printf 'module powercap.test/kube\n\n'
    grep -E '^go ' "$tree/go.mod"
    printf '\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$KUBE_VERSION"
    sed -nE "s#^\s*(k8s\.io/\S+) => \./staging/.*#\t\1 => \1 v0.${KUBE_VERSION#1.}#p" "$tree/go.mod"
    printf ')\n'
  } >kube/go.mod
  cp "$tree/go.sum" kube/go.sum && chmod u+w kube/go.sum
  kube_minor=${KUBE_VERSION#1.}
  kube_minor=${kube_minor%%.*}
  local flags="-s -w" package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=v$KUBE_VERSION -X $package.gitMajor=1 -X $package.gitMinor=$kube_minor"
  done
  (
    cd kube && go build -trimpath -ldflags "$flags" -o "$out/" \
      k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
  ) || return 1
  (
    cd etcd && go mod init powercap.test/etcd && go get "go.etcd.io/etcd/server/v3@v$ETCD_VERSION" &&
      go build -trimpath -ldflags "-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3
  ) || return 1
  "$out/kube-apiserver" --version && "$out/etcd" --version | head -1
}

go_is_at_least() {
  local minor
  minor=$(go env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')
  [ "${minor:-0}" -ge "$1" ]
}
