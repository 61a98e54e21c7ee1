"""git's smart HTTP protocol by dulwich, over the repository that `APP_FOLDER` names."""

import os

from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

app = make_wsgi_chain(DictBackend({"/": Repo(os.environ["APP_FOLDER"])}))
