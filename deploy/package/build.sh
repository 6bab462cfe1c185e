#!/bin/sh
# build.sh BIN OUT VERSION ARCH FORMAT...: packages the programs in BIN for a Linux machine of GOARCH into OUT, as deb or rpm.
# NFPM names the packager, LINKS the names under which clmgr is called as well.
set -eu
bin=$1 out=$2 version=$3 arch=$4
shift 4
cd "$(dirname "$0")/../.."
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A package holds what the checkout holds, but not the modes that somebody's umask gave it.
for name in $LINKS; do
    printf '  - {src: clmgr, dst: /usr/bin/%s, type: symlink}\n' "$name"
done >"$work/links"
for package in holdfast-client holdfast; do
    sed -e "s|\${BIN}|$bin|g; s|\${ARCH}|$arch|g; s|\${PACKAGE_VERSION}|$version|g" \
        -e "/\${LINKS}/{r $work/links
d
}" "deploy/package/$package.yaml" >"$work/$package.yaml"
    for format; do
        "$NFPM" package --config "$work/$package.yaml" --packager "$format" --target "$out/" >"$work/said" || { cat "$work/said" >&2; exit 1; }
    done
done
