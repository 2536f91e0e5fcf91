#!/usr/bin/env bash
# huggingface_hub 1.17.0: HfApi.create_commit leaves out the files that the repository's own
# .gitignore names. The hub marks them in its answer to the preupload request, and the client drops
# them from the commit. It returns the commit as if all were in it; the only trace is a log record
# below the default level. Who uploads by create_commit has to list the repository afterwards.
# The server below answers the two requests as the hub does where a .gitignore names "secret.txt".
# Exits 0 where this is what happens, 1 where it behaves otherwise.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==1.17.0

cat > "$folder/commit.py" <<'PYTHON'
import http.server
import json
import sys
import threading

from huggingface_hub import CommitOperationAdd, HfApi, __version__

OID = "0123456789abcdef0123456789abcdef01234567"
committed = []


class Hub(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "/preupload/" in self.path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": file["path"] == "secret.txt",
                }
                for file in json.loads(body)["files"]
            ]
            answer = {"files": files}
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            committed.extend(line["value"]["path"] for line in lines if line["key"] == "file")
            url = f"http://{self.headers['Host']}/a/b/commit/{OID}"
            answer = {"commitUrl": url, "commitOid": OID}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = HfApi(endpoint=f"http://127.0.0.1:{server.server_address[1]}", token="hf_x")
names = ["config.json", "secret.txt"]
done = api.create_commit(
    "a/b",
    [CommitOperationAdd(path_in_repo=name, path_or_fileobj=b"{}") for name in names],
    commit_message="both",
)
print("huggingface_hub", __version__)
print(f"asked to commit: {names}; committed: {committed}; returned: {done.oid}")
sys.exit(0 if committed == ["config.json"] and done.oid == OID else 1)
PYTHON
"$folder/venv/bin/python" "$folder/commit.py"
