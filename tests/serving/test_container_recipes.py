"""Procfile, Containerfile and Kubernetes manifests: commands, settings and paths that they name are there."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
import yaml
from harness import is_missing

from wsgi_timeout import settings
from wsgi_timeout.metrics import FAMILIES
from wsgi_timeout.serving.cli import main
from wsgi_timeout.serving.health import LIVE, READY
from wsgi_timeout.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXTS = {name: (DEPLOY / name).read_text() for name in ("Procfile", "Containerfile", "kubernetes.yml")}
MANIFESTS = list(yaml.safe_load_all(TEXTS["kubernetes.yml"]))


def of_kind(kind):
    return {found["metadata"]["name"]: found for found in MANIFESTS if found["kind"] == kind}


def installed(program):
    """Return a program of the tests' own environment."""
    folder = Path(sys.executable).parent
    return shutil.which(program, path=folder) or is_missing(program)


def pod(name):
    return of_kind("Deployment")[name]["spec"]["template"]["spec"]


def commands():
    """Yield every command line of the recipes as words."""
    for line in re.findall(r"^\w+: (.+)$", TEXTS["Procfile"], re.MULTILINE):
        yield shlex.split(line)
    yield json.loads(re.search(r"^CMD (.+)$", TEXTS["Containerfile"], re.MULTILINE)[1])
    for name in of_kind("Deployment"):
        [container] = pod(name)["containers"]
        yield container["args"]
    yield pod("legacy-worker")["containers"][0]["readinessProbe"]["exec"]["command"]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_understood(words):
    """Our own commands take the options that are given, and gunicorn gets our configuration."""
    program, *rest = words
    if program == "gunicorn":
        assert rest[:2] == ["-c", "python:wsgi_timeout.gunicorn_conf"]
        assert rest[2].replace('"', "'") == "wsgi_timeout:gateway('legacy:app')"
        return
    assert program == "wsgi-timeout"
    command = main.get_command(click.Context(main), rest[0])
    command.make_context(rest[0], list(rest[1:]))


@pytest.mark.parametrize("text", list(TEXTS.values()), ids=list(TEXTS))
def test_every_variable_and_path_is_ours(text):
    """Variables are settings, paths are answered, metrics are counted."""
    known = {f"WSGI_TIMEOUT_{field.name.upper()}" for field in fields(Settings)}
    known |= {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    assert set(re.findall(r"WSGI_TIMEOUT_[A-Z_]+", text)) <= known
    paths = {LIVE, READY, "/__wsgi_timeout/metrics"}
    assert set(re.findall(r"/__wsgi_timeout/\w+", text)) <= paths
    assert set(re.findall(r"\bwsgi_timeout_\w+", text)) - {"wsgi_timeout_work"} <= FAMILIES.keys()


def test_values_of_the_manifests_are_good_settings(monkeypatch):
    """The processes take the manifests' environment, and are given the time that they need to end."""
    data = of_kind("ConfigMap")["legacy"]["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    taken = Settings.load()
    web, worker = pod("legacy-web"), pod("legacy-worker")
    assert web["terminationGracePeriodSeconds"] >= taken.drain_delay + 30
    probe = web["containers"][0]["readinessProbe"]
    assert taken.drain_delay > probe["periodSeconds"] * probe["failureThreshold"]
    words = worker["containers"][0]["args"]
    assert worker["terminationGracePeriodSeconds"] > float(words[words.index("--graceful-timeout") + 1])


def test_manifests_fit_together():
    """Selectors find the pods' labels, and the autoscaler its deployment."""
    for found in of_kind("Deployment").values():
        spec = found["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    service = of_kind("Service")["legacy"]["spec"]
    web = of_kind("Deployment")["legacy-web"]["spec"]["template"]
    assert service["selector"] == web["metadata"]["labels"]
    scaler = of_kind("HorizontalPodAutoscaler")["legacy-worker"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in of_kind("Deployment")


@pytest.mark.slow
def test_manifests_keep_the_schemas(tmp_path):
    """Every manifest has the fields, and only the fields, that Kubernetes' schemas allow."""
    words = [installed("kubernetes-validate"), "--strict"]
    found = subprocess.run(
        [*words, DEPLOY / "kubernetes.yml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout.count(" passed ")) == (0, len(MANIFESTS)), found.stdout
    (tmp_path / "wrong.yml").write_text(TEXTS["kubernetes.yml"].replace("periodSeconds", "periodSecond", 1))
    wrong = subprocess.run([*words, tmp_path / "wrong.yml"], capture_output=True, timeout=60, check=False)
    assert (wrong.returncode, b"periodSecond" in wrong.stdout) == (1, True)


def test_the_containerfile_is_in_order(tmp_path):
    """A linter finds nothing in it, not even a matter of style, and does find what was made wrong."""
    lint = [installed("hadolint"), "--no-color", "--failure-threshold", "style", "--strict-labels"]
    subprocess.run([*lint, DEPLOY / "Containerfile"], check=True, timeout=60)
    (tmp_path / "Containerfile").write_text(TEXTS["Containerfile"].replace("--no-cache-dir ", ""))
    wrong = subprocess.run([*lint, tmp_path / "Containerfile"], capture_output=True, timeout=60, check=False)
    assert (wrong.returncode, b"DL3042" in wrong.stdout) == (1, True)
