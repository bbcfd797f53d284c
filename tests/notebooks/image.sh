#!/usr/bin/env bash
# Build what Binder would build, as far as that goes without Docker, and go through the demo there:
# a copy of this checkout as a fresh home, a fresh environment, `postBuild` in it, and the demo under
# `start`, without any network but loopback where this can be arranged. Run by `make binder`.
#
#   PYTHON=python3.11 tests/notebooks/image.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT
mkdir "$image/home"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    # What has been removed, but not from the index yet, is no part of the checkout.
    test ! -e "$file" || printf '%s\0' "$file"
done | tar --create --null --files-from=- | tar --extract --directory "$image/home"
"${PYTHON:-python3}" -m venv "$image/environment"

for variable in $(compgen -e | grep -E '^(QMT_|JUPYTER|IPYTHON|PYTHON|VIRTUAL_ENV|XDG_)'); do
    unset "$variable"
done
export HOME="$image/home" REPO_DIR="$image/home" PATH="$image/environment/bin:$PATH"
export NB_PYTHON_PREFIX="$image/environment"
# As on Binder, whose network this then takes to be closed to UDP.
export BINDER_LAUNCH_HOST=https://mybinder.org/
cd "$REPO_DIR"

echo "== postBuild"
./binder/postBuild >postBuild.log 2>&1 || { tail -n 40 postBuild.log; exit 1; }
jupyter lab workspaces export demo | python -c '
import json, pathlib, sys
workspace = json.load(sys.stdin)["data"]
shown = [each["data"]["path"] for name, each in workspace.items() if name.startswith("notebook:")]
assert len(shown) == 2 and all(map(pathlib.Path.is_file, map(pathlib.Path, shown))), shown
print("The workspace shows", *shown)
'

echo "== the demo"
alone=()
if unshare --net true 2>/dev/null; then
    alone=(unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh)
else
    echo "Only root can take the network away; the demo has the machine's."
fi
"${alone[@]}" "$REPO_DIR/binder/start" python tests/notebooks/demo.py
