#!/usr/bin/env bash
# Fetch onnxruntime-web, which encodes in the server's browser page, from npm into misc/deploy/page/vendor/ (14 MB).
set -euo pipefail

PACKAGE=onnxruntime-web@1.30.0
SUMS="
219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b  ort.wasm.min.mjs
e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b  ort-wasm-simd-threaded.mjs
3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2  ort-wasm-simd-threaded.wasm
"

fail() {
    echo "error: $1" >&2
    exit 2
}

cd "$(dirname "$0")/../misc/deploy/page"
command -v npm >/dev/null || fail "npm is needed to fetch $PACKAGE: install Node.js"
folder=$(mktemp -d .vendor-XXXXXX)
old=$folder.old # the vendor folder, until another is in its place
clean_up() {
    [ -d vendor ] || [ ! -d "$old" ] || mv "$old" vendor
    rm -rf "$folder" "$old"
}
trap clean_up EXIT
archive=$(npm pack --silent --pack-destination "$folder" "$PACKAGE") ||
    fail "npm could not fetch $PACKAGE: check the network and npm's registry, then try again"
names=$(awk '{print $2}' <<<"$SUMS")
# shellcheck disable=SC2086
tar -xzf "$folder/$archive" -C "$folder" --strip-components=2 $(printf 'package/dist/%s ' $names) ||
    fail "$PACKAGE lacks a file that the page needs"
rm "$folder/$archive"
sha256=$(command -v sha256sum || echo "shasum -a 256")
(cd "$folder" && grep . <<<"$SUMS" | $sha256 --check) >/dev/null 2>&1 ||
    fail "the files of $PACKAGE differ from those that were checked: nothing is installed"
chmod 755 "$folder"
[ ! -d vendor ] || mv vendor "$old"
mv "$folder" vendor || fail "cannot write to $(pwd)/vendor"
echo "wrote $(pwd)/vendor/:" $names
