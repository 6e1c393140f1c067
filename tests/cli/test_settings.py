"""Settings: a flag wins over the variable, the variable over the default; what exposes the server is refused."""

from __future__ import annotations

import pytest

from gradserve_service.settings import Settings, SettingsError, is_loopback, read_settings


def test_a_flag_wins_over_the_variable_and_the_variable_over_the_default(monkeypatch):
    assert read_settings(port=None).port == 8970
    monkeypatch.setenv("GRADSERVE_PORT", "1234")
    assert read_settings(port=None).port == 1234
    assert read_settings(port=99).port == 99


def test_every_setting_has_a_variable_and_a_description():
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name}: --help and the docs have nothing to say about it"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_without_a_token_only_loopback_is_served(host):
    with pytest.raises(SettingsError):
        read_settings(host=host)


@pytest.mark.parametrize(
    "given",
    [
        {"host": "127.0.0.1"},
        {"host": "127.8.8.8"},
        {"host": "::1"},
        {"host": "localhost"},
        {"uds": "gradserve.sock", "host": "0.0.0.0"},
        {"host": "0.0.0.0", "token": "t"},
        {"host": "0.0.0.0", "insecure": True},
    ],
)
def test_loopback_a_unix_socket_a_token_or_insecure_are_served(given):
    read_settings(**given)


def test_the_refusal_of_an_open_server_says_the_cure():
    with pytest.raises(SettingsError, match=r"GRADSERVE_TOKEN.*--insecure"):
        read_settings(host="0.0.0.0")


def test_each_wrong_value_is_named_with_where_it_came_from(monkeypatch):
    monkeypatch.setenv("GRADSERVE_PORT", "http")
    with pytest.raises(SettingsError, match=r"(?s)--durability: .*'disk'.*") as caught:
        read_settings(durability="disk")
    assert "$GRADSERVE_PORT: " in str(caught.value)


def test_an_empty_token_is_no_token_but_a_mistake(monkeypatch):
    """An unset secret in a deployment file must not open the server."""
    monkeypatch.setenv("GRADSERVE_TOKEN", "")
    with pytest.raises(SettingsError, match="empty"):
        read_settings()


def test_the_token_is_kept_as_its_digest_and_shown_nowhere():
    settings = Settings(token="secret-word")
    assert "secret-word" not in repr(settings)
    assert len(settings.token_digest() or b"") == 32
    assert Settings().token_digest() is None


def test_localhost_by_another_name_is_not_trusted():
    assert not is_loopback("localhost.example.com")
