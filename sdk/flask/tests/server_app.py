"""The application that real servers run in the tests."""

import os

from flask import Flask

from cloakroom_flask import Cloakroom
from site_of_tests import build

app = Flask("app")
Cloakroom(app)
build(app)


@app.get("/where")
def where() -> dict[str, object]:
    """Which process answers, and whether it follows the feed."""
    authority = app.extensions["cloakroom"].authority
    return {"pid": os.getpid(), "fresh": authority.is_fresh}
