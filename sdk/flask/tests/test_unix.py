"""An authority whose admin listener is a socket file."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from flask import Flask

from cloakroom_flask import Cloakroom
from conftest import authority_of, free_port, program, wait_until, wait_until_fresh
from site_of_tests import build


def test_a_socket_file_will_do() -> None:
    with tempfile.TemporaryDirectory(prefix="cloakroom-") as folder:
        path = Path(folder, "admin.sock")
        settings = {
            "CLOAKROOM_SERVER__PUBLIC": f"127.0.0.1:{free_port()}",
            "CLOAKROOM_SERVER__ADMIN": f"unix:{path}",
            "CLOAKROOM_LOG__LEVEL": "error",
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CLOAKROOM_")}
        process = subprocess.Popen(
            [program(), "serve", "--data", f"{folder}/data"],
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(path.exists, "the socket file")
            key = Path(folder, "data/root-api.key").read_text().strip()
            app = Flask("app")
            app.config.update(CLOAKROOM_URL=f"unix:{path}", CLOAKROOM_API_KEY=key)
            Cloakroom(app)
            client = build(app).test_client()
            client.post("/login", json={"user": "ada"})
            wait_until_fresh(app)
            assert client.get("/me").json["id"] == "ada"
            authority_of(app).close()
        finally:
            process.kill()
            process.wait()
