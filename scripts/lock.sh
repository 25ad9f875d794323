#!/usr/bin/env bash
# Writes constraints.txt: exact versions, for Python 3.11 to 3.13, from the ranges in pyproject.toml.
#
#   scripts/lock.sh             keep every pin that still fits, add and remove what pyproject.toml asks for
#   scripts/lock.sh --upgrade   take the newest version of everything
#
# After an upgrade run `make test`: a resolver knows what versions claim, not what they can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV_VERSION=0.13.9

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "Installing uv $UV_VERSION into a scratch environment" >&2
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input "uv==$UV_VERSION"

echo "Resolving" >&2
if [[ -f constraints.txt ]]; then cp constraints.txt "$scratch/constraints.txt"; fi
# pip refuses extras in a constraints file, and an index address would tie the file to one machine.
"$scratch/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 \
  --all-extras --group dev --strip-extras --no-annotate --no-emit-index-url \
  --custom-compile-command "make lock" "$@" \
  pyproject.toml --output-file "$scratch/constraints.txt" >/dev/null
if grep -nE '://|^-' "$scratch/constraints.txt" >&2; then
  echo "These lines hold an address or an option; constraints.txt was left as it is." >&2
  exit 1
fi
install -m 644 "$scratch/constraints.txt" constraints.txt
echo "constraints.txt pins $(grep -c == constraints.txt) versions" >&2
