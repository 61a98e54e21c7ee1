"""klaus, a browser of git repositories that can be pushed to, over the one that `APP_FOLDER` names."""

import os

from klaus import make_app

app = make_app(
    [os.environ["APP_FOLDER"]],
    "klaus",
    use_smarthttp=True,
    unauthenticated_push=True,
    disable_push=False,
)
