"""A stand-in for the HTTP interface of the Hugging Face Hub, as far as pushing and reading a model go."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        token: what a client has to send.
        refusal: status of the answer to a commit; None accepts it.
        private: repositories that were created as such.
        branches: (repository, branch) to file names with contents.
        messages: messages of the commits.
    """

    daemon_threads = True

    def __init__(self, token):
        super().__init__(("127.0.0.1", 0), Handler)
        self.token = token
        self.refusal = None
        self.private = set()
        self.branches = {}
        self.messages = []
        self.large = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def create(self, body):
        name = f"{body['organization']}/{body['name']}"
        if (name, "main") in self.branches:
            return 409, {"error": "You already created this model repo", "url": name}
        self.branches[name, "main"] = {}
        if body.get("private") or body.get("visibility") == "private":
            self.private.add(name)
        return 200, {"url": f"{self.address}/{name}"}

    def branch(self, name, branch):
        if (name, branch) in self.branches:
            return 409, {"error": "Reference already exists"}
        self.branches[name, branch] = dict(self.branches[name, "main"])
        return 200, {}

    def preupload(self, body):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in body["files"]
        ]
        return 200, {"files": files}

    def lfs(self, body):
        objects = [
            {
                "oid": each["oid"],
                "size": each["size"],
                "actions": {"upload": {"href": f"{self.address}/upload/{each['oid']}"}},
            }
            for each in body["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def commit(self, name, branch, lines):
        if self.refusal is not None:
            return self.refusal, {"error": "refused"}
        if (name, branch) not in self.branches:
            return 404, {"error": "not found"}
        files = self.branches[name, branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.large[value["oid"]]
        url = f"{self.address}/{name}/commit/{'c' * 40}"
        return 200, {"success": True, "commitOid": "c" * 40, "commitUrl": url}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_):
        """Write nothing to the terminal."""

    def do_PUT(self):
        content = self.body()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != oid:
            self.answer(400, {"error": "another checksum"})
            return
        self.server.large[oid] = content
        self.answer(200, {})

    def do_POST(self):
        body = self.body()
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self.answer(401, {"error": "Invalid username or password."})
            return
        lines = [json.loads(line) for line in body.splitlines() if line]
        self.answer(*self.posted(lines))

    def posted(self, lines):
        hub = self.server
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        match parts:
            case ["api", "repos", "create"]:
                return hub.create(lines[0])
            case ["api", "validate-yaml"]:
                return 200, {"errors": [], "warnings": []}
            case ["api", "models", owner, name, "branch", *branch]:
                return hub.branch(f"{owner}/{name}", "/".join(branch))
            case ["api", "models", owner, name, "preupload", *_]:
                return hub.preupload(lines[0])
            case ["api", "models", owner, name, "commit", *branch]:
                return hub.commit(f"{owner}/{name}", "/".join(branch), lines)
            case [*_, "info", "lfs", "objects", "batch"]:
                return hub.lfs(lines[0])
        return 404, {"error": f"no {self.path}"}

    def do_HEAD(self):
        self.resolve(with_body=False)

    def do_GET(self):
        self.resolve(with_body=True)

    def resolve(self, *, with_body):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if len(parts) != 5:
            self.answer(404, {"error": f"no {self.path}"})
            return
        owner, name, _, branch, file = parts
        files = self.server.branches.get((f"{owner}/{name}", branch))
        content = (files or {}).get(file)
        status = 404 if content is None else 200
        self.send_response(status)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound" if files is None else "EntryNotFound")
        content = content or b""
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def body(self):
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def answer(self, status, content):
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


@contextmanager
def running(token):
    """Serve a hub in a thread."""
    hub = Hub(token)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
