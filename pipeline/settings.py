"""All settings and the only reader of the environment (`TICKSTREAM_...`)."""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from pipeline.errors import MisuseError
from pipeline.stages.bars import BarsSettings
from pipeline.stages.chain import ChainSettings
from pipeline.stages.engines import load_engines
from pipeline.stages.equity import EquitySettings, parse_period
from pipeline.stages.features import FeaturesSettings
from pipeline.stages.fills import FillsSettings
from pipeline.stages.predictions import PredictionsSettings
from pipeline.stages.regimes import RegimesSettings
from pipeline.stages.signals import SignalsSettings
from pipeline.stages.ticks import GuardSettings
from pipeline.stages.user import UserFile, UserSettings
from schemas.gbdt import GBDT
from schemas.models import NAME, HmmModel, read_hmm
from schemas.webhooks import read_secret

_SHORTEST_STUCK = 5.0
RANGE_LONGEST = 36_600 * 86_400 * 10**9  # ns, of ticks to train on


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TopicSettings(_Group):
    """How topics are made."""

    partitions: int = Field(4, ge=1, le=1024, description="partitions of `prices` and its stages")
    replication: int = Field(1, ge=1, le=9)


class WorkerSettings(_Group):
    """The live loop."""

    group: str = Field(
        "tickstream", description="consumer group, service name of the progress rows"
    )
    instance: str = Field("worker-1", description="static member id; one per replica")
    model: str = Field(
        GBDT, pattern=NAME, description="whose active version speaks as the engine gbdt"
    )
    batch: int = Field(2000, ge=1, le=100_000, description="messages taken at once at most")
    portion_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="bytes of messages that are stepped at once at most"
    )
    session_timeout: float = Field(10.0, ge=1, description="seconds until a dead member is dropped")
    snapshot_seconds: float = Field(5.0, gt=0, description="seconds between copies of the state")
    give_up_seconds: float = Field(30.0, gt=0, description="seconds a sink may fail before exit")
    stuck_seconds: float = Field(
        60.0,
        ge=0,
        description="seconds with lag and without progress until `up` restarts it; 0: never",
    )

    @field_validator("stuck_seconds")
    @classmethod
    def _time_to_work(cls, value: float) -> float:
        """A worker needs a few seconds to show that it is at work."""
        if 0 < value < _SHORTEST_STUCK:
            raise ValueError(f"0 (never) or at least {_SHORTEST_STUCK:g}")
        return value


class StoreSettings(_Group):
    """The Postgres pool."""

    pool_min: int = Field(1, ge=0, le=100)
    pool_max: int = Field(8, ge=1, le=100)
    acquire_timeout: float = Field(10.0, gt=0, description="seconds to wait for a connection")
    statement_timeout: float = Field(30.0, gt=0, description="seconds a statement may take")
    pooler: bool = Field(
        False,
        description="a pooler by transaction (pgbouncer) stands in between: nothing is prepared",
    )
    retention_days: int | None = Field(
        None, ge=1, description="days that rows are kept after the day of writing; none: for ever"
    )


_COMPUTED = ("metrics", "registry")  # may be old until they are computed again
_COMPUTED_TTL = 60  # seconds


class CacheSettings(_Group):
    """The Redis pool and how long a latest value lives."""

    pool_max: int = Field(16, ge=1, le=1000)
    timeout: float = Field(1.0, gt=0, description="seconds for one call")
    ttl: int = Field(86_400, ge=1, description="seconds until a latest value expires")
    ttls: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="the same by kind (price, features, ...; metrics and registry: 60)"
    )
    absent_ttl: int = Field(5, ge=1, description="seconds that a missing value counts as missing")

    def ttl_of(self, kind: str) -> int:
        """Seconds until a value of a kind expires."""
        return self.ttls.get(kind, _COMPUTED_TTL if kind in _COMPUTED else self.ttl)


class JwtSettings(_Group):
    """Tokens that somebody else issues, as an identity provider. Set them in the environment."""

    secrets: tuple[SecretStr, ...] = Field(
        (), description="shared secrets of HS256, 32 bytes or more each"
    )
    public_keys: tuple[str, ...] = Field(
        (), description="PEM, or files of it: RSA for RS256, Ed25519 for EdDSA"
    )
    issuer: str | None = Field(None, description="the only `iss` that is taken")
    audience: str | None = Field(None, description="the `aud` that a token must name")
    role_claim: str = Field("role", min_length=1, description="reader, operator or admin")
    leeway: float = Field(0.0, ge=0, le=300, description="seconds that clocks may differ")


class ApiSettings(_Group):
    """The GraphQL server."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    auth: bool = Field(
        False, description="demand a key or a token; without it only loopback is served"
    )
    jwt: JwtSettings = JwtSettings()
    rate: float | None = Field(
        500.0, gt=0, description="operations a second of one key or subject; none: no limit"
    )
    burst: int = Field(1000, ge=1, description="operations at once after a quiet time")
    page_max: int = Field(500, ge=1, le=10_000)
    copied_symbols: int = Field(
        2000, ge=0, description="symbols whose latest rows a process keeps by itself; 0: none"
    )
    cost_max: int = Field(100_000, ge=1, description="values that one answer may hold")
    query_seconds: float = Field(10.0, gt=0, description="seconds that a query may take")
    sockets_max: int = Field(
        1000, ge=1, description="WebSockets of one key or subject at a process"
    )
    subscriptions_max: int = Field(64, ge=1, description="operations at once on a WebSocket")
    documents: Path | None = Field(
        None, description="a manifest of documents that clients may name: JSON, or Apollo's"
    )
    documents_only: bool = Field(False, description="answer no other documents than these")
    development: bool | None = Field(
        None, description="the explorer and introspection; if unset, on loopback only"
    )


class RpcSettings(_Group):
    """The gRPC server; who is let in, rates and pages are those of `api`."""

    host: str = "127.0.0.1"
    port: int = Field(50_051, ge=0, le=65_535, description="0: a free one")
    fused: bool = Field(False, description="`tickstream api` (and `up`) serves it, too")
    streams_max: int = Field(100, ge=1, description="calls at once on a connection")
    calls_max: int = Field(1000, ge=1, description="calls at once at a process")


class JobsSettings(_Group):
    """Replays and backtests that are asked for by GraphQL, and trainings by a schedule."""

    directory: Path | None = Field(
        None, description="where runners write; if unset, `jobs` in the data directory"
    )
    at_once: int = Field(1, ge=1, le=64, description="jobs that a runner does at once")
    queued_max: int = Field(100, ge=1, description="jobs that may wait")
    lease_seconds: float = Field(
        30.0, ge=1, le=3600, description="seconds until a job of a dead runner is taken up again"
    )
    attempts: int = Field(3, ge=1, le=100, description="runners that may die of a job")
    seconds_max: float = Field(86_400.0, gt=0, description="seconds that a job may take")


class DriftSettings(_Group):
    """The watch for drift beside a live run."""

    symbols: int = Field(
        32, ge=1, le=10_000, description="of a partition; a megabyte for each while it is measured"
    )


class CallsSettings(_Group):
    """Outgoing HTTP calls."""

    timeout: float = Field(10.0, gt=0, le=300, description="seconds that an attempt may take")
    attempts: int = Field(3, ge=1, le=10, description="times that a call is tried in a row")
    first_pause: float = Field(0.5, ge=0, le=60, description="seconds until the second attempt")
    longest_pause: float = Field(30.0, ge=0, le=300, description="seconds between attempts at most")
    longest_rest: float = Field(
        300.0, ge=0, le=3600, description="seconds that who fails again and again is left alone"
    )
    at_once: int = Field(128, ge=1, le=10_000, description="calls at once")
    at_once_per_host: int = Field(32, ge=1, le=10_000, description="calls of one host at once")
    answer_max: int = Field(65_536, ge=0, description="bytes of an answer that are read")
    plain: bool = Field(False, description="http also beyond this machine, not only https")
    authorities: Path | None = Field(
        None, description="PEM file of certificate authorities that are trusted, too"
    )


class Webhook(_Group):
    """A receiver of alerts. Set it in the environment: its address is often a secret, too."""

    url: SecretStr = Field(description="https://..., or http://localhost...")
    secrets: tuple[SecretStr, ...] = Field(
        (), description="whsec_ and base64 of 24 to 64 bytes; each signs, so that one can follow"
    )
    kinds: tuple[str, ...] = Field((), description="kinds of alerts that it gets; none: all")
    at_once: int = Field(4, ge=1, le=16, description="alerts on their way at once; 1 keeps order")
    age_max: float = Field(
        86_400.0, gt=0, description="seconds after its publication until an alert is given up"
    )

    @field_validator("secrets")
    @classmethod
    def _keys(cls, values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for value in values:
            read_secret(value.get_secret_value())
        return values

    @property
    def keys(self) -> tuple[bytes, ...]:
        """What it is signed by."""
        return tuple(read_secret(value.get_secret_value()) for value in self.secrets)


class ModelsSettings(_Group):
    """What is done about the versions that speak on the stream."""

    score_seconds: float = Field(
        10.0, ge=0, le=3600, description="seconds between looks at outcomes of a live run; 0: never"
    )
    watch: bool = Field(
        True,
        description="who was active before a promotion is its shadow, and comes back if better",
    )
    watch_rows: int = Field(
        2000, ge=1, le=10_000_000, description="matured rows that a promotion is judged by at least"
    )


class TrainingSettings(_Group):
    """Training of the engine gbdt by a schedule."""

    every: str | None = Field(
        None, description="how often, as 1d or 6h, counted from 1970 UTC; if unset, never"
    )
    range: str = Field("30d", description="how far back the ticks reach")
    source: Literal["postgres:ticks", "kafka:prices"] = Field(
        "postgres:ticks", description="what is replayed"
    )
    model: str = Field(GBDT, pattern=f"^{NAME}$", description="its name in the registry")
    symbols: tuple[str, ...] = Field((), description="whose rows teach and judge; none: all")
    features: tuple[str, ...] = Field((), description="columns it looks at; none: as `train gbdt`")
    held_out: float = Field(0.25, ge=0.01, le=0.9, description="share of the rows to judge by")
    embargo: int = Field(
        0, ge=0, le=1_000_000, description="bars behind a fold that teach nothing, too"
    )
    promote: bool = Field(True, description="make a better one active; else it is only compared")

    @field_validator("every")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            parse_period(value)
        return value

    @field_validator("range")
    @classmethod
    def _known_range(cls, value: str) -> str:
        parse_period(value, RANGE_LONGEST)
        return value


class ReplaySettings(_Group):
    """Replays of files and topics."""

    block: int = Field(16_384, ge=1, description="ticks stepped at once; no bit depends on it")
    row_group: int = Field(65_536, ge=1, description="rows of a Parquet row group")


class Settings(BaseSettings):
    """Everything that can be set, from the environment and `--set`."""

    model_config = SettingsConfigDict(
        env_prefix="TICKSTREAM_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    kafka: str | None = Field(None, description="address of a broker instead of the embedded one")
    postgres: str | None = Field(None, description="DSN of a database instead of the embedded one")
    redis: str | None = Field(
        None, description="URL of a Redis or Valkey instead of the embedded one"
    )
    log: Literal["console", "json"] = "console"

    guard: GuardSettings = GuardSettings()
    bars: BarsSettings = BarsSettings()
    features: FeaturesSettings = FeaturesSettings()
    user: UserSettings = UserSettings()
    regimes: RegimesSettings = RegimesSettings()
    predictions: PredictionsSettings = PredictionsSettings()
    signals: SignalsSettings = SignalsSettings()
    fills: FillsSettings = FillsSettings()
    equity: EquitySettings = EquitySettings()

    topics: TopicSettings = TopicSettings()
    worker: WorkerSettings = WorkerSettings()
    store: StoreSettings = StoreSettings()
    cache: CacheSettings = CacheSettings()
    api: ApiSettings = ApiSettings()
    rpc: RpcSettings = RpcSettings()
    replay: ReplaySettings = ReplaySettings()
    jobs: JobsSettings = JobsSettings()
    calls: CallsSettings = CallsSettings()
    webhooks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], Webhook] = Field(
        {}, description="receivers of alerts, by a name"
    )
    models: ModelsSettings = ModelsSettings()
    training: TrainingSettings = TrainingSettings()
    drift: DriftSettings = DriftSettings()

    @field_validator("user", mode="before")
    @classmethod
    def _with_sources(cls, value: Any) -> Any:
        """Paths of a user's features and engines as files with their text."""
        if not isinstance(value, dict):
            return value
        found = dict(value)
        for kind in ("features", "engines"):
            named = value.get(kind)
            if isinstance(named, list | tuple | str):
                paths = [named] if isinstance(named, str) else named
                found[kind] = [_user_file(path) for path in paths]
        return found

    @field_validator("regimes", mode="before")
    @classmethod
    def _with_model(cls, value: Any) -> Any:
        """The path of an artifact as the model in it."""
        if not isinstance(value, dict) or not isinstance(value.get("hmm"), str):
            return value
        return {**value, "hmm": _hmm_model(value["hmm"])}

    @property
    def chain(self) -> ChainSettings:
        """The part that decides the numbers."""
        return ChainSettings(
            guard=self.guard,
            bars=self.bars,
            features=self.features,
            user=self.user,
            regimes=self.regimes,
            predictions=self.predictions,
            signals=self.signals,
            fills=self.fills,
            equity=self.equity,
        )


def _user_file(path: Any) -> Any:
    if not isinstance(path, str):
        return path
    try:
        return UserFile(path=path, source=Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _hmm_model(path: str) -> HmmModel:
    try:
        return read_hmm(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def nested(assignments: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` assignments as a tree of groups.

    Raises:
        MisuseError: one is none, or names a group as a value.
    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise MisuseError(f"--set takes KEY=VALUE, as in guard.mode=plain; got {assignment!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
            if not isinstance(branch, dict):
                raise MisuseError(f"--set {key}: {name} is a value, not a group")
        branch[path[-1]] = value
    return tree


def told(error: ValidationError) -> str:
    """The first setting that does not fit, and why, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    unknown = first["type"] == "extra_forbidden"
    return f"setting {where}: {'there is no such setting' if unknown else first['msg']}"


def load_settings(assignments: Iterable[str] = (), **values: Any) -> Settings:
    """Settings from the environment, overridden by `KEY=VALUE` assignments and by values.

    Raises:
        MisuseError: a key is unknown or a value does not fit.
    """
    try:
        settings = Settings(**{**nested(assignments), **values})
    except ValidationError as error:
        raise MisuseError(told(error)) from error
    except SettingsError as error:
        raise MisuseError(f"setting in the environment: {error}") from error
    load_engines(settings.user)  # and features
    return settings


def child_environment(values: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process of ours: this one's, with values replaced."""
    return {**os.environ, **values}


def samples_directory() -> Path | None:
    """Where the real price samples lie (`TICKSTREAM_SAMPLES`), if that is said."""
    named = os.environ.get("TICKSTREAM_SAMPLES")
    return Path(named) if named else None


def fresh_id() -> str:
    """A name that nothing else bears."""
    return uuid.uuid4().hex
