"""hgweb, Mercurial's own web app, over the repository that `STRANGER_FOLDER` names."""

import os

from mercurial.hgweb import hgweb

app = hgweb(os.environ["STRANGER_FOLDER"].encode())
