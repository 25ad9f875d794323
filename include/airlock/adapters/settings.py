"""Where things are in a deployment, from ``AIRLOCK_*`` environment variables.

Everything has an embedded default below ``AIRLOCK_HOME``, so a laptop needs no configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

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
    mlflow_uri: Annotated[str, Field(description="MLflow tracking and registry URI")] = ""
    airflow_url: Annotated[str, Field(description="base URL of the Airflow API server")] = (
        "http://127.0.0.1:8080"
    )
    service_user: Annotated[str, Field(description="Airflow user Airlock closes open seats as")] = "airlock"
    service_password: Annotated[SecretStr, Field(description="its password")] = SecretStr("")
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

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for child processes. Contains secrets."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
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
