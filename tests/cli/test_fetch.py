"""`kiln fetch` from a hub that a small server on this machine plays, with the starter tagger as the model it has."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.runs.fetch import Repository
from lorakiln.tag import wd

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {path.name: path.read_bytes() for path in wd.STARTER.iterdir()}


class Hub(BaseHTTPRequestHandler):
    """What a download asks: which files a model consists of, and their bytes."""

    def answer(self, body: bytes, headers: dict[str, str], code: int = 200) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = path.rsplit("/", 1)[-1]
        if path.startswith("/api/models/me/tagger/tree"):
            files = [{"type": "file", "path": file, "size": len(data), "oid": COMMIT} for file, data in FILES.items()]
            self.answer(json.dumps(files).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/models/me/tagger"):
            files = [{"rfilename": file, "size": len(data)} for file, data in FILES.items()]
            told = {"id": "me/tagger", "sha": COMMIT, "siblings": files, "tags": [], "private": False}
            self.answer(json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/me/tagger/resolve/") and name in FILES:
            self.answer(FILES[name], {"ETag": f'"{hashlib.sha256(FILES[name]).hexdigest()}"'})
        else:
            self.answer(b"", {"X-Error-Code": "RepoNotFound"}, 404)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def kiln(tmp_path):
    """`kiln` in a process whose hub is the server and whose cache is the test's own; `offline`: whose hub is gone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(*words: object, offline: bool = False) -> subprocess.CompletedProcess:
        port = 1 if offline else server.server_port
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        command = [sys.executable, "-m", "lorakiln", *map(str, words)]
        return subprocess.run(command, env=environment | hub, capture_output=True, text=True, check=False)

    yield run
    server.shutdown()
    server.server_close()


def test_a_fetched_tagger_then_works_offline(kiln, tmp_path):
    (tmp_path / "set").mkdir()
    Image.new("RGB", (64, 64), (250, 250, 250)).save(tmp_path / "set" / "a.png")
    before = kiln("tag", tmp_path / "set", "--tagger", "me/tagger", offline=True)
    assert before.returncode == 2 and "kiln fetch me/tagger" in before.stderr
    done = kiln("fetch", "me/tagger", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == {name: len(FILES[name]) for name in (wd.MODEL, wd.TAGS)}, "the card is not wanted"
    after = kiln("tag", tmp_path / "set", "--tagger", "me/tagger", offline=True)
    assert after.returncode == 0, after.stderr
    assert (tmp_path / "set" / "a.txt").exists()


def test_a_dry_run_downloads_nothing(kiln, tmp_path):
    done = kiln("fetch", "me/tagger", "--dry-run")
    assert done.returncode == 0 and "in 2 files" in done.stdout
    assert not list((tmp_path / "hf").rglob("*.onnx"))


@pytest.mark.parametrize(
    ("words", "offline", "line"),
    [
        (["me/nothing"], False, "kiln: me/nothing: no such model on the hub"),
        (["not an id"], False, "kiln: not an id: no such model on the hub"),
        (["me/tagger"], True, "kiln: me/tagger: the hub cannot be reached"),
        (["me/tagger", "--only", "vae/*"], False, "kiln: me/tagger: none of its"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(kiln, words, offline, line):
    done = kiln("fetch", *words, offline=offline)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_of_a_diffusers_folder_one_copy_of_the_weights_is_wanted():
    names = [
        "model_index.json", "base.safetensors", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin", "unet/model.onnx",
        "tokenizer/merges.txt", "README.md", "picture.png",
    ]  # fmt: skip
    found = Repository("a/b", dict.fromkeys(names, 1)).wanted()
    assert list(found) == [
        "model_index.json", "tokenizer/merges.txt", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    single = Repository("a/b", {"m.safetensors": 5, "m.ckpt": 5})
    assert single.wanted() == {"m.safetensors": 5}
    with pytest.raises(UserError, match="none of its 1 files is read"):
        Repository("a/b", {"m.ckpt": 1}).wanted()
