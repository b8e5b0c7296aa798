#!/usr/bin/env bash
# Finds or makes the servers that the tests run against, and prints the folder of their binaries.
#
#   fetch.sh prometheus    prometheus, promtool
#   fetch.sh kube          etcd, kube-apiserver, kube-controller-manager
#
# Looks in this order, and fails with what it tried when nothing works; it never skips:
#   prometheus: $POWERCAP_PROMETHEUS (a folder), PATH, the cache, Debian's package unpacked
#   kube:       $KUBEBUILDER_ASSETS (a folder), the cache, the project's published binaries,
#               a build of the current version with Go, a build of 1.20 from Debian's source
# POWERCAP_KUBE_RECIPE=published|go|debian forces one of the last three.
# Needs no root, installs nothing, writes only to ${XDG_CACHE_HOME:-~/.cache}/powercap/servers.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/powercap/servers
TRIED=()

say() { echo "fetch $SERVER: $*" >&2; }
tried() { TRIED+=("$*"); say "not by $*"; }
has_all() {
  local folder=$1 name
  shift
  for name in "$@"; do [ -x "$folder/$name" ] || return 1; done
}
found() {
  say "using $1"
  echo "$1"
  exit 0
}
# Moves a finished folder into the cache in one step, so that half a result is never used.
keep() {
  mkdir -p "$CACHE"
  rm -rf "$2.part" "$2"
  cp -r "$1" "$2.part"
  mv "$2.part" "$2"
}

fetch_prometheus() {
  local folder=$CACHE/prometheus path
  if [ -n "${POWERCAP_PROMETHEUS:-}" ]; then
    has_all "$POWERCAP_PROMETHEUS" prometheus promtool && found "$POWERCAP_PROMETHEUS"
    tried "POWERCAP_PROMETHEUS=$POWERCAP_PROMETHEUS (no prometheus and promtool in it)"
  else
    tried "POWERCAP_PROMETHEUS (unset)"
  fi
  if path=$(command -v prometheus) && has_all "$(dirname "$path")" prometheus promtool; then
    found "$(dirname "$path")"
  fi
  tried "PATH"
  has_all "$folder" prometheus promtool && found "$folder"
  tried "the cache ($folder)"
  if prometheus_from_debian "$folder" >&2; then found "$folder"; fi
  tried "Debian's package (see above)"
}

prometheus_from_debian() (
  command -v apt-get && command -v dpkg-deb || exit 1
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  private_apt "$work" deb || exit 1
  cd "$work"
  apt-get "${APT[@]}" update && apt-get "${APT[@]}" download prometheus || exit 1
  dpkg-deb -x prometheus_*.deb root || exit 1
  root/usr/bin/prometheus --version || exit 1
  keep root/usr/bin "$1"
)

# An apt state of our own whose entries copy the machine's Debian address: no root, and the
# machine's set-up stays as it is. Sets APT; $1 is the folder, the rest are types (deb, deb-src).
private_apt() {
  local work=$1 uri suite type
  shift
  uri=$(sed -nE 's#^(URIs:|deb( \[[^]]*\])?) *(http[^ ]*/debian/?)( .*)?$#\3#p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -1 || true)
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ -n "$uri" ] && [ -n "$suite" ] || { echo "this is no Debian with an apt entry to copy"; return 1; }
  mkdir -p "$work"/apt/{parts,lists/partial,cache/archives/partial}
  for type in "$@"; do
    printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
      "$type" "$uri" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg
  done >"$work/apt/parts/powercap.sources"
  APT=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/apt/parts"
    -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache"
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=2)
}

fetch_kube() {
  local names=(etcd kube-apiserver kube-controller-manager) recipe folder
  local recipes=${POWERCAP_KUBE_RECIPE:-published go debian}
  if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    has_all "$KUBEBUILDER_ASSETS" "${names[@]}" && found "$KUBEBUILDER_ASSETS"
    tried "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS (not all of: ${names[*]})"
  else
    tried "KUBEBUILDER_ASSETS (unset)"
  fi
  for recipe in $recipes; do
    folder=$CACHE/kube-$recipe-$(cat "$HERE/kube-$recipe.sh" | sha256sum | cut -c1-12)
    has_all "$folder" "${names[@]}" && found "$folder"
  done
  tried "the cache ($CACHE/kube-*)"
  for recipe in $recipes; do
    folder=$CACHE/kube-$recipe-$(cat "$HERE/kube-$recipe.sh" | sha256sum | cut -c1-12)
    say "trying kube-$recipe.sh"
    if kube_by_recipe "$recipe" "$folder" >&2 && has_all "$folder" "${names[@]}"; then
      found "$folder"
    fi
    tried "kube-$recipe.sh (see above)"
  done
}

kube_by_recipe() (
  work=$(mktemp -d "${TMPDIR:-/tmp}/powercap-kube.XXXXXX")
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
  if [ "$1" = debian ]; then private_apt "$work" deb deb-src || exit 1; fi
  mkdir "$work/out"
  # shellcheck source=/dev/null
  cd "$work" && source "$HERE/kube-$1.sh" && build "$work/out" || exit 1
  keep "$work/out" "$2"
)

SERVER=${1:-}
# A second call waits for the first one's build instead of building again.
mkdir -p "$CACHE"
exec 9>"$CACHE/$(basename "${SERVER:-none}").lock"
flock 9 2>/dev/null || true
case $SERVER in
  prometheus) fetch_prometheus ;;
  kube) fetch_kube ;;
  *)
    echo "usage: fetch.sh prometheus|kube" >&2
    exit 2
    ;;
esac
say "nothing worked. Tried:"
printf '  - %s\n' "${TRIED[@]}" >&2
exit 1
