# Builds Kubernetes 1.20 from the source package of Debian 12, with Debian packages only.
# Sourced by fetch.sh (which sets APT and private_apt); about 5 minutes and 2.2 GB of temporary disk.
# The version is old (no CEL in CRDs, no strict field validation): the last resort.

build() {
  local out=$1 here=$PWD go version
  apt-get "${APT[@]}" update || return 1
  apt-get "${APT[@]}" source --download-only kubernetes || return 1
  apt-get "${APT[@]}" download etcd-server || return 1
  version=v$(ls kubernetes_*.orig.tar.gz | sed -E 's/^kubernetes_(.*really)?([0-9.]+)\.orig.*/\2/')
  # Upstream built 1.20 with Go 1.15, which is in Debian 11. With 1.19 the vendored reflect2 crashes
  # the server at the first custom resource, hence the newer libraries and the overlay below.
  go=1.15
  sed '/^$/q; s/^Suites:.*/Suites: bullseye/' apt/parts/powercap.sources >apt/parts/older.sources
  if ! { apt-get "${APT[@]}" update && apt-get "${APT[@]}" download golang-1.15-{go,src}; }; then
    go=1.19
    rm apt/parts/older.sources
    apt-get "${APT[@]}" update
    apt-get "${APT[@]}" download golang-1.19-{go,src} \
      golang-github-{modern-go-reflect2,modern-go-concurrent,json-iterator-go}-dev || return 1
  fi
  local package
  for package in ./*.deb; do dpkg-deb -x "$package" root || return 1; done
  local tree=$here/gopath/src/k8s.io/kubernetes
  mkdir -p "$tree"
  tar xzf kubernetes_*.orig.tar.gz --strip-components=1 -C "$tree" || return 1

  # GOPATH mode, as Debian builds it.
  export PATH=$here/root/usr/lib/go-$go/bin:$PATH GOROOT=$here/root/usr/lib/go-$go \
    GOPATH=$here/gopath GOCACHE=$here/gocache GO111MODULE=off GOENV=off GOFLAGS='' GOPROXY=off \
    GOTOOLCHAIN=local CGO_ENABLED=0 GOTMPDIR=$here
  cd "$tree" || return 1
  generate_openapi "$here" || return 1
  local overlay=()
  if [ "$go" != 1.15 ]; then use_newer_libraries "$here" || return 1; fi
  local flags="-s -w" part
  for part in component-base/version client-go/pkg/version; do
    part=k8s.io/kubernetes/vendor/k8s.io/$part
    flags+=" -X $part.gitVersion=$version -X $part.gitMajor=1 -X $part.gitMinor=20"
  done
  for part in kube-apiserver kube-controller-manager; do
    go build "${overlay[@]}" -trimpath -ldflags "$flags" -o "$out/$part" \
      "k8s.io/kubernetes/cmd/$part" || return 1
  done
  cp "$here/root/usr/bin/etcd" "$out/"
  "$out/kube-apiserver" --version
}

# The one generated file that the source package lacks.
generate_openapi() {
  local here=$1 folders
  go build -o "$here/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen ||
    return 1
  folders=$(find -L vendor/k8s.io pkg -name '*.go' ! -name '*_test.go' -print0 |
    xargs -0 grep -l '^// *+k8s:openapi-gen=' |
    grep -vE '^vendor/k8s.io/(code-generator|sample-apiserver|kube-openapi)/' |
    xargs -n1 dirname | sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
  "$here/openapi-gen" -i "$folders" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt \
    -r "$here/violations" --output-base "$GOPATH/src" 2>"$here/generate.log" ||
    { cat "$here/generate.log"; return 1; }
}

# With a newer Go: Debian's newer reflect2 and json-iterator, and one line of the validator, which
# newer Go's reflect would make refuse `default: ""`. Sets overlay.
use_newer_libraries() {
  local here=$1 file=vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go
  rm -r vendor/github.com/{modern-go/reflect2,json-iterator/go}
  export GOPATH=$GOPATH:$here/root/usr/share/gocode
  sed 's/if data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data)) {/if data == nil {/' \
    "$file" >"$here/type.go"
  ! cmp -s "$file" "$here/type.go" || { echo "the line to overlay is not there"; return 1; }
  echo "{\"Replace\":{\"$PWD/$file\":\"$here/type.go\"}}" >"$here/overlay.json"
  overlay=(-overlay "$here/overlay.json")
}
