"""pypiserver, an index for pip to install from and for twine to upload to, in `APP_FOLDER`."""

import os

import pypiserver

app = pypiserver.app(roots=[os.environ["APP_FOLDER"]], authenticate=[], password_file=".")
