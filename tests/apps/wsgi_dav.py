"""WsgiDAV, a WebDAV server, over the folder that `DAV_FOLDER` names; locks and properties are in memory."""

import os

from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

app = WsgiDAVApp(
    {
        "provider_mapping": {"/": FilesystemProvider(os.environ["DAV_FOLDER"])},
        "simple_dc": {"user_mapping": {"*": True}},
        "property_manager": True,
        "lock_storage": True,
        "verbose": 1,
        "logging": {"enable": False},
    }
)
