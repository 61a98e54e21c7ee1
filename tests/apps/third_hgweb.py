"""hgweb, Mercurial's own web app, over the repository that `APP_FOLDER` names."""

import os

from mercurial.hgweb import hgweb

app = hgweb(os.environ["APP_FOLDER"].encode())
