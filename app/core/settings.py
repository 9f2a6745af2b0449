"""Settings: environment variables with the prefix `SHOTLINE_`, one class per concern.

Each variable is the class's prefix and the field: `SHOTLINE_DATABASE_URL`. The same name with
`_FILE` behind it names a file that holds the value, for secrets. `docs/configuration.md` lists all.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from app.core.errors import Forbidden
from models.errors import BadInput

MIB, GIB = 1024**2, 1024**3

_DATABASES = ("postgresql+psycopg://", "sqlite://")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class FileSettingsSource(EnvSettingsSource):
    """Reads `SHOTLINE_X_FILE` as the name of the file that holds `SHOTLINE_X`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the file's content without the line end, or None where the variable is not set."""
        for _, name, is_complex in self._extract_field_info(field, field_name):
            path = os.environ.get(f"{name.upper()}_FILE")
            if path is not None:
                return _read(f"{name.upper()}_FILE", Path(path)), field_name, is_complex
        return None, field_name, False


def _read(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise BadInput(
            f"{variable} names a file that cannot be read: {error}.",
            fix=f"Correct {variable}, or let this account read the file.",
            field=variable,
        ) from error


class Concern(BaseSettings):
    """What every class of settings shares: frozen, from the environment or from files.

    Raises:
        BadInput: a variable whose value cannot be used, or a file of one that cannot be read.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._refused(error) from error
        except SettingsError as error:  # wraps what a source raises
            if isinstance(error.__cause__, BadInput):
                raise error.__cause__ from None
            raise

    @classmethod
    def _refused(cls, error: ValidationError) -> BadInput:
        first = error.errors()[0]
        field = str(first["loc"][0])
        name = f"{cls.model_config['env_prefix']}{field.upper()}"
        annotation = cls.model_fields[field].annotation
        secret = SecretStr in (annotation, *get_args(annotation))
        given = "not usable" if secret else f"{first['input']!r}"
        return BadInput(
            f"{name} is {given}: {first['msg']}.",
            fix=f"Correct {name}; docs/configuration.md says what it takes.",
            field=name,
        )

    @classmethod
    def settings_customise_sources(  # the names are pydantic-settings' own
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then variables, then files named by variables."""
        return init_settings, env_settings, FileSettingsSource(settings_cls)


class ServerSettings(Concern):
    """Where the gateway listens and where it keeps its files."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_")

    home: Path = Field(Path("shotline-data"), description="Folder of everything that is kept.")
    host: str = Field("127.0.0.1", description="Address that the gateway binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the gateway; 0 picks a free one.")
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks of proxies, with commas between, whose X-Forwarded-For"
        " is believed; by default nobody's is.",
    )


class TlsSettings(Concern):
    """TLS of the gateway itself, where no proxy speaks it."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_TLS_")

    certificate_file: Path | None = Field(
        None, description="PEM file of the certificate, followed by those between it and its root."
    )
    key_file: Path | None = Field(None, description="PEM file of its private key.")

    @property
    def is_on(self) -> bool:
        """Whether the gateway speaks TLS."""
        return self.certificate_file is not None

    @model_validator(mode="after")
    def _both(self) -> Self:
        given = {"CERTIFICATE_FILE": self.certificate_file, "KEY_FILE": self.key_file}
        missing = [f"SHOTLINE_TLS_{name}" for name, path in given.items() if path is None]
        if len(missing) == 1:
            raise BadInput(
                f"{missing[0]} is not set, and the other of the pair is.",
                fix="Set both SHOTLINE_TLS_CERTIFICATE_FILE and SHOTLINE_TLS_KEY_FILE.",
                field=missing[0],
            )
        return self


class DatabaseSettings(Concern):
    """The database, and how long to wait for it."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_DATABASE_")

    url: SecretStr | None = Field(
        None, description="`postgresql+psycopg://…`; without it SQLite in the home folder."
    )

    busy_timeout: PositiveFloat = Field(
        10.0, description="Seconds to wait for SQLite's write lock."
    )
    connect_timeout: PositiveInt = Field(3, description="Seconds to wait for a connection.")
    statement_timeout: PositiveFloat = Field(
        30.0, description="Seconds that one PostgreSQL statement may take."
    )
    pool_size: PositiveInt = Field(10, description="Connections kept open.")

    @field_validator("url")
    @classmethod
    def _known(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(_DATABASES):
            raise ValueError(f"it has to begin with {' or '.join(_DATABASES)}")
        return url


class StorageSettings(Concern):
    """Where bytes are kept."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_STORAGE_")

    folder: Path | None = Field(None, description="Folder of the blobs; default `HOME/blobs`.")
    orphan_age: PositiveFloat = Field(
        3600.0, description="Seconds after which a blob that no row names is swept."
    )
    low_disk_bytes: NonNegativeInt = Field(
        2 * GIB,
        description="With so little free `/readyz` says `degraded`; at most a tenth of the volume,"
        " 0 never.",
    )
    reserve_bytes: NonNegativeInt = Field(
        200 * MIB,
        description="With so little free uploads, batches and kept images are refused (507), so"
        " that the database can go on; at most a twentieth of the volume, 0 never.",
    )


class QueueSettings(Concern):
    """The broker."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_QUEUE_")

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="Redis, `redis://` or `redis+socket://`."
    )
    name: str = Field("shotline", description="Name of the queue that tunings go through.")
    send_timeout: PositiveFloat = Field(
        1.0, description="Seconds to try to send; what is not sent is found in the database."
    )


class LimitSettings(Concern):
    """Limits on everything that comes in."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_LIMIT_")

    body_bytes: PositiveInt = Field(1 * MIB, description="Body of a JSON request.")
    upload_bytes: PositiveInt = Field(2 * GIB, description="Body of an upload of images.")
    predict_bytes: PositiveInt = Field(128 * MIB, description="Body of a prediction request.")
    file_bytes: PositiveInt = Field(64 * MIB, description="One image file.")
    upload_files: PositiveInt = Field(10_000, description="Files in one upload or archive.")
    archive_bytes: PositiveInt = Field(8 * GIB, description="An archive's content, unpacked.")
    archive_ratio: PositiveInt = Field(
        200, description="Unpacked size over packed size of an archive."
    )
    # At most what every decoder of the product takes (`models.imaging.MAX_PIXELS`).
    image_pixels: PositiveInt = Field(
        50_000_000, le=50_000_000, description="Pixels of one image; 50 million at most."
    )
    predict_images: PositiveInt = Field(1000, description="Images in one prediction request.")
    body_seconds: PositiveFloat = Field(
        30.0, description="Seconds in which a body must bring 16 KiB or its end; slower is 408."
    )
    upload_workers: PositiveInt = Field(2, description="Uploads that are decoded at the same time.")
    header_bytes: PositiveInt = Field(
        32 * 1024, description="Address, query and headers of a request together; more is 431."
    )
    header_seconds: PositiveFloat = Field(
        10.0, description="Seconds in which a request's headers must be whole; slower is 408."
    )
    answer_seconds: PositiveFloat = Field(
        30.0,
        description="Seconds in which a caller must take 16 KiB of its answer; slower is cut off.",
    )
    connections: PositiveInt = Field(
        1000,
        description="Open connections; above that those that ask for nothing are closed first.",
    )


class AuthSettings(Concern):
    """Who may come in."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_")

    auth: Literal["on", "off"] = Field(
        "on", description="`off` gives every caller the role admin; only on a loopback address."
    )
    auth_failures: PositiveInt = Field(
        10,
        description="Wrong keys that one address, and one key's beginning, may send at once; after"
        " them answers are 429. A good key is let in all the same.",
    )
    auth_failure_seconds: PositiveFloat = Field(
        6.0, description="Seconds after which one more wrong key may be sent."
    )


class AuditSettings(Concern):
    """The record of changes."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_AUDIT_")

    key_file: Path | None = Field(
        None,
        description="File of the key that seals the record, one for gateway, worker and command"
        " line, made at the first start; default `HOME/audit.key`.",
    )


class BackboneSettings(Concern):
    """The frozen CLIP, and the device it runs on."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_BACKBONE_")

    source: str | None = Field(
        None, description="What `models.load_backbone` takes; default: the starter backbone."
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic of the image encoder."
    )
    engine: Literal["auto", "torch", "torch-compile", "openvino", "onnx"] = Field(
        "auto",
        description="What computes the gateway's image encoder; `auto` takes the fastest that is"
        " installed and decides as PyTorch does. `openvino` and `onnx` are extras, for CPUs.",
    )
    threads: PositiveInt | None = Field(
        None, description="CPU threads of the image encoder; as many as cores by default."
    )
    int8: Literal["off", "on"] = Field(
        "off",
        description="`on` answers in INT8 for the versions that `shotline quantize` accepted.",
    )
    offline: bool = Field(True, description="Refuse sources that would be fetched from a network.")

    @property
    def name(self) -> str:
        """What `models.load_backbone` takes."""
        return self.source or "starter"


class PredictionSettings(Concern):
    """The prediction path."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_PREDICTION_")

    max_batch: PositiveInt = Field(
        4,
        description="Images that ride in one batch. A CPU gains nothing from more, and whoever"
        " waits for a batch waits longer; 32 suits a GPU.",
    )
    max_queue: PositiveInt = Field(
        256, description="Images that are worked on or wait; above that answers are 503."
    )
    decode_workers: PositiveInt = Field(
        2, description="Threads that decode images; one alone while the encoder has enough to do."
    )
    refresh_seconds: PositiveFloat = Field(
        0.5, description="How often a gateway looks for changed keys, aliases and projects."
    )
    model_bytes: PositiveInt = Field(
        GIB,
        description="Class embeddings in memory; above that the least recently used leave.",
    )
    record_queue: PositiveInt = Field(
        10_000,
        description="Predictions waiting to be written; above that they are dropped, counted.",
    )
    record_image_bytes: PositiveInt = Field(
        256 * MIB, description="Images waiting to be kept; above that they are not, counted."
    )
    image_quota_bytes: PositiveInt = Field(
        10 * GIB, description="Predicted images kept per project, oldest dropped first."
    )
    idempotency_hours: PositiveFloat = Field(
        24.0, description="Hours for which an Idempotency-Key is remembered."
    )


# A hundred years: more is a slip of the keyboard, and no date can be made of much more.
MOST_DAYS = 36_500


class RetentionSettings(Concern):
    """How long predictions are kept, where a project has no rules of its own."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_RETENTION_")

    predictions_days: int | None = Field(
        None,
        ge=1,
        le=MOST_DAYS,
        description="Days after which records of predictions are deleted, with their images;"
        " without it they are kept for ever.",
    )
    images_days: int | None = Field(
        None,
        ge=1,
        le=MOST_DAYS,
        description="Days after which the images kept with predictions are; without it the quota"
        " alone decides.",
    )
    sweep_seconds: PositiveFloat = Field(
        3600.0, description="How often a gateway looks for what has expired."
    )


class TuningSettings(Concern):
    """How long a worker's claim holds."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_TUNING_")

    lease_seconds: PositiveFloat = Field(
        30.0, description="A tuning whose worker is silent for so long goes back to the queue."
    )
    heartbeat_seconds: PositiveFloat = Field(
        5.0, description="How often a worker renews its lease."
    )
    poll_seconds: PositiveFloat = Field(
        0.5, description="How often a worker looks whether its tuning was cancelled."
    )
    progress_seconds: PositiveFloat = Field(0.5, description="Least time between two reports.")
    checkpoint_seconds: PositiveFloat = Field(
        10.0, description="Least time between two checkpoints."
    )
    drain_seconds: PositiveFloat = Field(
        10.0, description="How long a worker that is told to stop waits for a last checkpoint."
    )
    reap_seconds: PositiveFloat = Field(
        5.0, description="How often gateway and worker look for lost tunings."
    )
    resend_seconds: PositiveFloat = Field(
        60.0, description="A tuning that is queued for so long is sent again."
    )
    nice: int = Field(
        10, ge=0, le=19, description="Niceness of a tuning, so that predictions stay fast."
    )
    give_way: bool = Field(
        True,
        description="Tunings and batches pause while a gateway of the same data folder decides on"
        " images, for three quarters of the time at most.",
    )
    max_attempts: PositiveInt = Field(3, description="Attempts before a tuning is failed.")
    time_limit_seconds: PositiveInt = Field(6 * 3600, description="Hard limit on one tuning.")


class BatchSettings(Concern):
    """Batches of predictions in the background; leases and limits are those of tunings."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_BATCH_")

    part_images: int = Field(
        64,
        ge=1,
        le=1000,
        description="Images that are done in one go: so many at most are done again after a loss,"
        " and so many a tuning waits for.",
    )


class GateSettings(Concern):
    """What a version has to show before it is promoted, where a project has no rules of its own."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_GATES_")

    enabled: bool = Field(
        True, description="A version is measured against what it is to replace before it serves."
    )
    margin: float = Field(
        0.05,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="So much macro accuracy may be lost, and it still counts as not worse.",
    )
    inconclusive: Literal["allow", "block"] = Field(
        "allow", description="Whether what the images are too few for stands in the way."
    )


class LogSettings(Concern):
    """What is logged, and how."""

    model_config = SettingsConfigDict(env_prefix="SHOTLINE_LOG_")

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")
    format: Literal["json", "console"] = Field("json", description="`console` is for people.")


class Settings(BaseModel):
    """All settings of a gateway or a worker."""

    model_config = ConfigDict(frozen=True)

    server: ServerSettings = Field(default_factory=ServerSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    backbone: BackboneSettings = Field(default_factory=BackboneSettings)
    prediction: PredictionSettings = Field(default_factory=PredictionSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    tuning: TuningSettings = Field(default_factory=TuningSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    gates: GateSettings = Field(default_factory=GateSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @cached_property
    def home(self) -> Path:
        """The folder of everything that is kept, absolute."""
        return self.server.home.expanduser().absolute()

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the database."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.home / 'shotline.db'}"

    @property
    def audit_key_file(self) -> Path:
        """The file of the key that seals the record of changes, absolute."""
        return (self.audit.key_file or self.home / "audit.key").expanduser().absolute()

    @property
    def blob_folder(self) -> Path:
        """The folder of the content-addressed blobs."""
        return self.storage.folder or self.home / "blobs"

    @property
    def written_folders(self) -> dict[str, Path]:
        """The folders of whose disks the service has to take care, by what people call them."""
        found = {"the data folder": self.home, "images and models": self.blob_folder}
        if self.database_url.startswith("sqlite:///"):
            path = Path(self.database_url.removeprefix("sqlite:///").split("?")[0])
            found["the database"] = path.absolute().parent
        return found

    @property
    def feature_folder(self) -> Path:
        """The folder of computed image features; safe to delete."""
        return self.home / "features"

    @property
    def engine_folder(self) -> Path:
        """The folder of converted image encoders; safe to delete."""
        return self.home / "engines"

    @property
    def int8_folder(self) -> Path:
        """The folder of what `shotline quantize` found; safe to delete."""
        return self.home / "int8"

    @property
    def thumbnail_folder(self) -> Path:
        """The folder of computed thumbnails; safe to delete."""
        return self.home / "thumbnails"

    @cached_property
    def scratch_folder(self) -> Path:
        """The folder of uploads in flight: files without a name, which end with their request."""
        return self.home / "scratch"

    @property
    def precedence_file(self) -> Path:
        """Says whether predictions are under way, see `app.core.precedence`."""
        return self.home / "predictions-under-way"

    def require_safe_binding(self) -> None:
        """Raise `Forbidden` where authentication is off on an address that others can reach."""
        if self.auth.auth == "off" and self.server.host not in _LOOPBACK:
            raise Forbidden(
                f"SHOTLINE_AUTH is off and the gateway would listen on {self.server.host!r}.",
                fix="Turn authentication on, or bind to 127.0.0.1.",
                field="SHOTLINE_AUTH",
            )
