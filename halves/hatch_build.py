"""Says where the packages lie: in a clone one folder up, in an sdist beside this file."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What is packed, by its place in a clone, with its place in a wheel.
PLACES = {
    "wsgi_timeout": "wsgi_timeout",
    "jobs/wsgi_timeout_jobs": "wsgi_timeout_jobs",
    "clients": "wsgi_timeout/clients",
}


class Places(BuildHookInterface):
    def initialize(self, version, build_data):  # noqa: ARG002  (hatchling calls it so)
        here = Path(self.root)
        top = here if (here / "wsgi_timeout").is_dir() else here.parent
        for source, target in PLACES.items():
            place = source if self.target_name == "sdist" else target
            build_data["force_include"][str(top / source)] = place
