"""Where things are in a deployment, from ``AIRLOCK_*`` environment variables.

Everything has an embedded default below ``AIRLOCK_HOME``, so a laptop needs no configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from airlock.core.errors import ConfigurationError


class Settings(BaseSettings):
    """The settings of one deployment."""

    model_config = SettingsConfigDict(env_prefix="AIRLOCK_", frozen=True, extra="ignore")

    home: Annotated[Path, Field(description="state of this deployment")] = Path(".airlock")
    config_dir: Annotated[Path, Field(description="workloads, policies, expectations, people")] = Path(
        "config"
    )
    data_dir: Annotated[Path | None, Field(description="root of all data paths in workload files")] = None
    evidence_dir: Annotated[Path | None, Field(description="content-addressed evidence")] = None
    audit_url: Annotated[SecretStr, Field(description="SQLAlchemy URL of the audit store")] = SecretStr("")
    audit_anchors: Annotated[str, Field(description="URLs of the anchors, separated by spaces")] = ""
    audit_key_file: Annotated[Path | None, Field(description="signing key; the sequencer alone reads it")] = (
        None
    )
    anchor_wait_seconds: Annotated[
        float, Field(description="how long a critical event waits to be anchored", gt=0, le=600)
    ] = 15
    anonymous_per_minute: Annotated[
        int, Field(description="refused requests without a login recorded one by one in a minute", ge=1)
    ] = 60
    personal_key_file: Annotated[Path | None, Field(description="key for what people write")] = None
    spool_dir: Annotated[Path | None, Field(description="routine events while the database is away")] = None
    advisories: Annotated[
        Path | None, Field(description="copy of the OSV database: folder, zip or lines")
    ] = None
    wheels: Annotated[Path | None, Field(description="wheels for the environments of models")] = None
    mlflow_uri: Annotated[str, Field(description="MLflow tracking and registry URI")] = ""
    airflow_url: Annotated[str, Field(description="base URL of the Airflow API server")] = (
        "http://127.0.0.1:8080"
    )
    opa_url: Annotated[str, Field(description="OPA server that judges rules in Rego; else Regorus does")] = ""
    service_user: Annotated[str, Field(description="Airflow user Airlock closes open seats as")] = "airlock"
    service_password: Annotated[SecretStr, Field(description="its password")] = SecretStr("")
    slack_signing_secret: Annotated[
        SecretStr, Field(description="proves that a request to the Slack endpoint is Slack's")
    ] = SecretStr("")
    slack_team: Annotated[str, Field(description="id of the only Slack workspace whose requests count")] = ""
    slack_token: Annotated[SecretStr, Field(description="bot token, to open forms and answer in Slack")] = (
        SecretStr("")
    )
    slack_app_token: Annotated[
        SecretStr, Field(description="app token (xapp-…) to take what is pressed over Socket Mode")
    ] = SecretStr("")
    slack_api: Annotated[str, Field(description="base URL of Slack's API")] = "https://slack.com/api/"
    deployment: Annotated[str, Field(description="name of this deployment in audit keys", min_length=1)] = (
        "local"
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, object]) -> dict[str, object]:
        # `AIRLOCK_DATA_DIR=` in an env file means "not set", never "the current folder".
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _fill_defaults(self) -> Self:
        home = self.home.expanduser().resolve()
        filled = {
            "home": home,
            "config_dir": self.config_dir.expanduser().resolve(),
            "data_dir": (self.data_dir or home / "data").expanduser().resolve(),
            "evidence_dir": (self.evidence_dir or home / "evidence").expanduser().resolve(),
            "audit_url": SecretStr(self.audit_url.get_secret_value() or f"sqlite:///{home / 'audit.db'}"),
            "audit_anchors": self.audit_anchors or f"file://{quote(str(self.anchor_root))}",
            "audit_key_file": (self.audit_key_file or home / "keys" / "audit").expanduser().resolve(),
            "personal_key_file": (self.personal_key_file or home / "keys" / "personal")
            .expanduser()
            .resolve(),
            "spool_dir": (self.spool_dir or home / "spool").expanduser().resolve(),
            "advisories": self.advisories.expanduser().resolve() if self.advisories else None,
            "wheels": self.wheels.expanduser().resolve() if self.wheels else None,
            "mlflow_uri": self.mlflow_uri or f"sqlite:///{home / 'mlflow.db'}",
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)
        return self

    @property
    def data_root(self) -> Path:
        """``data_dir``, resolved."""
        return self.data_dir or self.home / "data"

    @property
    def evidence_root(self) -> Path:
        """``evidence_dir``, resolved."""
        return self.evidence_dir or self.home / "evidence"

    @property
    def anchor_root(self) -> Path:
        """Where checkpoints are kept when no other anchor is named."""
        return self.home.expanduser().resolve() / "anchor"

    @property
    def signing_key(self) -> Path:
        """``audit_key_file``, resolved."""
        return self.audit_key_file or self.home / "keys" / "audit"

    @property
    def personal_key_path(self) -> Path:
        """``personal_key_file``, resolved."""
        return self.personal_key_file or self.home / "keys" / "personal"

    @property
    def spool_root(self) -> Path:
        """``spool_dir``, resolved."""
        return self.spool_dir or self.home / "spool"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for child processes. Contains secrets."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values = {name: value for name, value in values.items() if value is not None}
        return {
            f"AIRLOCK_{name.upper()}": value.get_secret_value()
            if isinstance(value, SecretStr)
            else str(value)
            for name, value in values.items()
        }


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = "_".join(str(part) for part in problem["loc"]).upper()
        raise ConfigurationError(
            f"AIRLOCK_{name}: {problem['msg']}", where="environment", fix="correct or unset the variable"
        ) from error
