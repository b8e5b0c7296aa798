# Takes the Kubernetes project's own published binaries, each checked against its published hash.
# Sourced by fetch.sh; build DIR leaves the binaries in DIR or fails within seconds of no network.
KUBE_VERSION=v1.35.4
ETCD_VERSION=v3.6.5

build() {
  local out=$1 arch name base hash
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) arch=amd64 ;;
    Linux-aarch64) arch=arm64 ;;
    *) echo "no published server binaries for $(uname -s) $(uname -m)"; return 1 ;;
  esac
  base=https://dl.k8s.io/release/$KUBE_VERSION/bin/linux/$arch
  for name in kube-apiserver kube-controller-manager; do
    download "$base/$name" "$out/$name" || return 1
    hash=$(download "$base/$name.sha256" - ) || return 1
    echo "$hash  $out/$name" | sha256sum --check --quiet || return 1
  done
  name=etcd-$ETCD_VERSION-linux-$arch.tar.gz
  base=https://github.com/etcd-io/etcd/releases/download/$ETCD_VERSION
  download "$base/$name" "$name" || return 1
  download "$base/SHA256SUMS" - | grep " $name\$" | sha256sum --check --quiet || return 1
  tar xzf "$name" --strip-components=1 -C "$out" "${name%.tar.gz}/etcd" || return 1
  chmod +x "$out"/*
}

download() { curl --fail --silent --show-error --location --connect-timeout 5 --max-time 600 -o "$2" "$1"; }
