"""Settings: where they come from, and what is refused."""

import dataclasses
import subprocess
import sys

import pytest
from harness import APPS, environment

from wsgi_timeout import gateway
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.settings import ENV_PREFIX, Settings, environment_of

FIELDS = dataclasses.fields(Settings)
NUMBERS = [field for field in FIELDS if field.type in {"int", "float"}]

#: Good values of settings that are text, but of addresses.
TEXTS = {
    "log_format": ("json", "text", "json"),
    "metrics_path": ("/metrics", "/a/metrics", "/b"),
    "public_url": ("https://one.example", "http://two.example:8000", "https://three.example"),
    "cors_origins": ("https://one.example", "*", "https://one.example, http://two.example:8000"),
    "idempotency_headers": ("Idempotency-Key", "X-Request-ID", "Idempotency-Key, X-Request-ID"),
    "waiting_page": ("never", "at-once", ""),
    "durability": ("fsync", "", "fsync"),
    "event_streams": ("resumable", "", "resumable"),
}

every_field = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
every_number = pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for field in FIELDS:
        monkeypatch.delenv(variable(field), raising=False)


def variable(field):
    return ENV_PREFIX + field.name.upper()


def others(field):
    """Return three good values of a field that differ from each other and from its default."""
    match field.type:
        case "bool":
            return (not field.default, field.default, not field.default)
        case "int" if field.metadata["one_of"]:
            return (*field.metadata["one_of"][::-1], field.metadata["one_of"][1])
        case "int":
            return (field.default + 1, field.default + 2, field.default + 3)
        case "float":
            return (field.default + 0.5, field.default + 1.5, field.default + 2.5)
    return TEXTS.get(field.name, ("10.0.0.1", "*", "10.0.0.2, fd00::1"))


def test_defaults():
    """Without any source every setting has its default."""
    assert Settings.load() == Settings()


@every_field
def test_from_the_environment(field, monkeypatch):
    """Each setting is read from its environment variable, in its type."""
    value, *_ = others(field)
    monkeypatch.setenv(variable(field), str(value))
    found = getattr(Settings.load(), field.name)
    assert (found, type(found).__name__) == (value, field.type)


@every_field
def test_from_flasks_config(field, monkeypatch):
    """Each setting is read from Flask's config, as a value or as text, before the environment."""
    in_config, in_environment, _ = others(field)
    monkeypatch.setenv(variable(field), str(in_environment))
    for value in (in_config, str(in_config)):
        assert getattr(Settings.load({variable(field): value}), field.name) == in_config


@every_field
def test_keywords_come_first(field, monkeypatch):
    """A keyword wins over Flask's config and the environment."""
    given, in_config, in_environment = others(field)
    monkeypatch.setenv(variable(field), str(in_environment))
    loaded = Settings.load({variable(field): in_config}, **{field.name: given})
    assert getattr(loaded, field.name) == given


@every_field
def test_none_is_not_given(field, monkeypatch):
    """A keyword of None, as from an option that was left out, leaves the other sources."""
    value, *_ = others(field)
    monkeypatch.setenv(variable(field), str(value))
    assert getattr(Settings.load(**{field.name: None}), field.name) == value


@every_field
def test_a_child_process_gets_the_same(field, monkeypatch):
    """Settings written into an environment are read back from it."""
    value, *_ = others(field)
    environment = environment_of({field.name: value, "left_out": None})
    assert list(environment) == [variable(field)]
    monkeypatch.setenv(variable(field), environment[variable(field)])
    assert Settings.load() == Settings(**{field.name: value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", True),
        ("true", True),
        ("TRUE", True),
        ("yes", True),
        ("0", False),
        ("false", False),
        ("False", False),
        ("no", False),
    ],
)
def test_words_for_yes_and_no(text, value, monkeypatch):
    """The usual words for yes and no are read, case or not."""
    monkeypatch.setenv("WSGI_TIMEOUT_WAIT_FOR_RESPONSE", text)
    assert Settings.load().wait_for_response is value


WANTED = {"bool": "true or false", "int": "a whole number", "float": "a number"}


@pytest.mark.parametrize(
    "field", [field for field in FIELDS if field.type in WANTED], ids=lambda field: field.name
)
@pytest.mark.parametrize("source", ["environment", "config"])
def test_text_that_cannot_be_read(field, source, monkeypatch):
    """A text that is no value of its type is refused, with the variable, the text and what is wanted."""
    config = {}
    if source == "environment":
        monkeypatch.setenv(variable(field), "soon")
    else:
        config = {variable(field): "soon"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(config)
    assert str(caught.value) == f"{variable(field)}='soon' is not {WANTED[field.type]}"


@pytest.mark.parametrize("text", ["", " ", "1.5", "1e3", "0x10", "1 MB"])
def test_a_whole_number_is_one(text, monkeypatch):
    """Bytes and counts are whole numbers, without units."""
    monkeypatch.setenv("WSGI_TIMEOUT_BUFFER", text)
    with pytest.raises(ConfigurationError, match="not a whole number"):
        Settings.load()


@every_field
def test_a_value_of_another_type(field):
    """A keyword of another type is refused, with its name, its value and the type."""
    wrong = 1 if field.type in {"bool", "str"} else "1"
    for value in (wrong, None, [1], b"1"):
        with pytest.raises(ConfigurationError, match=f"{field.name}=.*must be of type {field.type}"):
            Settings(**{field.name: value})


@every_number
def test_yes_is_no_number(field):
    """True and False, which Python counts as 1 and 0, are no numbers here."""
    with pytest.raises(ConfigurationError, match="must be of type"):
        Settings(**{field.name: True})


@every_number
def test_a_number_has_a_least_value(field):
    """A number below its least value is refused, and the least one is taken."""
    if field.metadata["one_of"]:
        with pytest.raises(ConfigurationError, match="redirect_status=304: must be 303 or 307"):
            Settings(redirect_status=304)
        return
    least = field.metadata["least"]
    with pytest.raises(ConfigurationError, match=f"{field.name}=.*must be at least {least}"):
        Settings(**{field.name: least - 1})
    exact = int(least) if field.type == "int" else float(least)
    assert getattr(Settings(**{field.name: exact}), field.name) == least


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
@every_number
def test_a_number_is_finite(field, text, monkeypatch):
    """What is not a finite number is refused."""
    monkeypatch.setenv(variable(field), text)
    with pytest.raises(ConfigurationError):
        Settings.load()


def test_a_whole_number_of_seconds():
    """Seconds may be given as a whole number."""
    assert Settings(wait_seconds=25).wait_seconds == 25


def test_an_unknown_keyword():
    """A keyword that is no setting is refused, and the message lists those that there are."""
    with pytest.raises(ConfigurationError, match=r"unknown setting 'wait': use one of wait_seconds, timeout"):
        Settings.load(wait=25)


def test_replace():
    """A copy with changes is checked like the original, which stays as it is."""
    settings = Settings()
    assert settings.replace(timeout=5.0).timeout == 5.0
    assert settings == Settings()
    with pytest.raises(ConfigurationError, match="timeout=-1"):
        settings.replace(timeout=-1)


def test_settings_are_frozen():
    """A setting is not changed after the fact."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().timeout = 1.0


@pytest.mark.parametrize("command", ["worker", "serve"])
def test_a_secret_that_can_be_guessed_is_refused(command):
    """No process that serves starts with a short secret; the message says what is wrong and what to do."""
    env = {**environment(), "WSGI_TIMEOUT_SECRET": "x" * 31}
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", command, "basic:app"]
    refused = subprocess.run(
        command, env=env, cwd=APPS, capture_output=True, text=True, timeout=30, check=False
    )
    assert refused.returncode == 2
    assert "WSGI_TIMEOUT_SECRET has 31 characters and must have 32 at least" in refused.stderr


def test_a_front_refuses_a_secret_that_can_be_guessed(monkeypatch):
    """Under a server of another make, too."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("WSGI_TIMEOUT_SECRET", "x" * 31)
    with pytest.raises(ConfigurationError, match="has 31 characters"):
        gateway("basic:app")
