#!/usr/bin/env bash
# absl-py 2.5.1: importing `absl.logging` takes what standard error is at that moment as the log
# handler's stream. If standard error is another object later, any `logging.config.dictConfig`, of
# any library, closes that stream: Python closes all handlers then, and absl's handler closes its
# stream unless it is the present standard error or output. A test runner that captures output, or
# a program that puts a wrapper before standard error for a while, loses its stream for good.
#
# Claims checked: after an import under a wrapper, dictConfig closes the real standard error through
# the wrapper; without absl it stays open; with absl imported before the wrapper it stays open.
# Exits with 0 if all hold, 1 if they do not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet absl-py==2.5.1
cat > "$folder/show.py" <<'PYTHON'
import logging.config
import sys

when = sys.argv[1]


class Wrapper:
    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)


real = sys.stderr
if when == "before":
    import absl.logging
sys.stderr = Wrapper(real)
if when == "under":
    import absl.logging
sys.stderr = real
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
print("closed" if real.closed else "open")
PYTHON
shown=as
echo "absl-py $("$folder/venv/bin/pip" show absl-py 2>/dev/null | sed -n 's/^Version: //p')"
for when in under never before; do
  found=$("$folder/venv/bin/python" "$folder/show.py" "$when")
  echo "absl.logging imported: $when the wrapper: standard error is $found afterwards"
  case "$when $found" in "under closed" | "never open" | "before open") ;; *) shown="NOT as" ;; esac
done
echo "$shown described"
[ "$shown" = as ]
# Output seen, 2026-11-30, Python 3.11.7:
#   absl-py 2.5.1
#   absl.logging imported: under the wrapper: standard error is closed afterwards
#   absl.logging imported: never the wrapper: standard error is open afterwards
#   absl.logging imported: before the wrapper: standard error is open afterwards
#   as described
