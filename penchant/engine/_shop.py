"""A shop is one folder: settings, what happened, what was learned, and what was done."""

from __future__ import annotations

import datetime as dt
import errno
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from penchant.core import HISTORY_EVENTS, Clock, Noun, SeenRule, Target
from penchant.core.errors import InputError, ShopError, StorageError
from penchant.data import Mapping, Quarantine, Settings
from penchant.engine._explore_settings import ExploreSettings
from penchant.engine._guide import NovelSettings, RerankSettings
from penchant.engine._identity import Identity, give_identity, identity_of
from penchant.engine._planner import PlannerSettings
from penchant.engine._requests import InitReport, InitRequest, Objective
from penchant.engine._scenarios import ScenarioSettings
from penchant.privacy import ConsentBook, Pseudonyms
from penchant.store import Servers, ShopStore, atomic_write, open_store

if TYPE_CHECKING:
    from penchant.privacy import Vault

CONFIG = "shop.toml"


class ServeSettings(Noun, frozen=True):
    """How the shop answers: the ``[serve]`` table."""

    max_history: Annotated[
        int, Meta(ge=1, le=HISTORY_EVENTS, description="events of a person a model looks at")
    ] = HISTORY_EVENTS
    candidates: Annotated[int, Meta(ge=10, le=5000, description="best items handed to the policy")] = 500
    out_of_stock: Annotated[bool, Meta(description="may items that are out of stock be shown")] = False
    reasons: Annotated[int, Meta(ge=0, le=5, description="reasons per item")] = 1
    objective: Annotated[
        Objective, Meta(description="rank by interest alone, or by value: chance times price less cost")
    ] = "interest"
    recount: Annotated[bool, Meta(description="count new events before answering many people")] = True
    trial_hours: Annotated[
        float,
        Meta(
            ge=0,
            description="hours in which a promoted model is taken back when it surely does worse in front of people "
            "than the one before: errors, empty or late answers, fewer clicks; 0: never",
        ),
    ] = 24.0
    spark: Annotated[
        str,
        Meta(
            description="Spark master that many people are answered on, such as spark://host:7077 or local[8]; its "
            "workers reach the shop under the same path; empty: this process answers"
        ),
    ] = ""


class StoreSettings(Noun, frozen=True):
    """Servers that keep a part of the shop instead of its folder: the ``[store]`` table.

    An address that begins with ``$`` names an environment variable that holds it, so that no password stands here.
    """

    journal: Annotated[
        str,
        Meta(
            description="PostgreSQL for events and decisions, `postgresql://...`; empty: a file of the shop"
        ),
    ] = ""
    live: Annotated[
        str, Meta(description="Redis or Valkey for live histories, `redis://...`; empty: files of the shop")
    ] = ""

    @property
    def used(self) -> bool:
        """Whether there is any."""
        return bool(self.journal or self.live)

    def servers(self, shop: Identity, *, alone: bool = False) -> Servers:
        """The addresses themselves; ``alone`` where one process has to be the only one that writes.

        Raises:
            ShopError: An environment variable is not set.
        """
        journal, live = _address("journal", self.journal), _address("live", self.live)
        return Servers(shop.id, journal, live, alone, before=shop.name or "")


def named(setting: str) -> str | None:
    """A setting, or what the environment variable holds that it names as ``$NAME``; None where that is not set."""
    return os.environ.get(setting[1:]) if setting.startswith("$") else setting


def _address(key: str, given: str) -> str:
    found = named(given)
    if given and not found:
        hint = "set it before penchant starts"
        raise ShopError(
            f"[store] {key} names an environment variable that is not set", value=given[1:], hint=hint
        )
    return found or ""


class TrainSettings(Noun, frozen=True):
    """How the shop learns: the ``[train]`` table."""

    models: Annotated[list[str], Meta(description="model kinds to try; empty: all that fit")] = []
    holdout: Annotated[float, Meta(gt=0, lt=0.9, description="share of target events held out by time")] = 0.1
    keep: Annotated[int, Meta(ge=1, le=1000, description="artifacts kept per model kind")] = 5
    settings: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="settings of model kinds: a table `[train.settings.KIND]` for each, see below"),
    ] = {}


class ContentSettings(Noun, frozen=True):
    """What is read of the items themselves: the ``[content]`` table."""

    text: Annotated[
        str,
        Meta(description="text encoder: minilm (English), e5 (other languages), off; auto: by the catalogue"),
    ] = "auto"
    image: Annotated[
        str,
        Meta(description="picture encoder: efficientnet_lite0, off; auto: where pictures are local files"),
    ] = "auto"


class PrivacySettings(Noun, frozen=True):
    """What may be known of people: the ``[privacy]`` table."""

    consent: Annotated[
        Literal["opt_out", "opt_in"],
        Meta(description="opt_out: people who chose nothing allow everything; opt_in: they allow nothing"),
    ] = "opt_out"
    encrypt: Annotated[
        bool,
        Meta(
            description="seal free texts, attributes and logged answers under a key of each person, for good"
        ),
    ] = False
    pseudonymise: Annotated[
        bool, Meta(description="keep pseudonyms in place of user_id and anonymous_id; only for a new shop")
    ] = False
    erasures: Annotated[
        str,
        Meta(
            description="file outside the shop that notes erasures, for `restore`; empty: erasures.log in it"
        ),
    ] = ""


class CollectSettings(Noun, frozen=True):
    """What the collector takes from browsers: the ``[collect]`` table."""

    origins: Annotated[
        list[Annotated[str, Meta(pattern=r"^(\*|https?://[^/\s]+)$")]],
        Meta(description="web pages that may send events, such as https://shop.example; * for any"),
    ] = []


class KafkaSettings(Noun, frozen=True):
    """Where events come from beside HTTP: the ``[kafka]`` table. A server reads the topics while it runs."""

    brokers: Annotated[str, Meta(description="HOST:PORT, several parted by commas; empty: none")] = ""
    topics: Annotated[list[str], Meta(description="topics whose messages are events")] = []
    form: Annotated[
        Literal["canonical", "segment", "ga4", "ga4-measurement", "google-retail", "shopify"],
        Meta(description="whose words the messages are in; canonical: as `observe` takes them"),
    ] = "canonical"
    options: Annotated[
        dict[str, str],
        Meta(
            description="settings of librdkafka, such as security.protocol; $NAME is read from the environment"
        ),
    ] = {}


Told = Literal[
    "ingest",
    "catalog",
    "consume",
    "train",
    "recount",
    "promote",
    "rollback",
    "start_experiment",
    "stop_experiment",
    "erase_user",
]


class WebhookSettings(Noun, frozen=True):
    """Whom to tell of what operations did: a table ``[webhooks.NAME]`` each."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(https://[^/\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/\S*)?$",
            description="where messages are sent; https, or this machine",
        ),
    ]
    secret: Annotated[
        str, Meta(min_length=8, description="signs the messages; $NAME is read from the environment")
    ]
    on: Annotated[list[Told], Meta(min_length=1, description="operations to tell of, each when it is done")]


class ShopConfig(Noun, frozen=True):
    """All of ``shop.toml``. An unknown or mistyped key is refused at the start, by name."""

    name: str
    version: int = 1
    seen: SeenRule = "auto"
    target: Annotated[
        Target, Meta(description="kind of event that training chooses by and `recommend` predicts")
    ] = "any"
    data: Settings = msgspec.field(default_factory=Settings)
    serve: ServeSettings = msgspec.field(default_factory=ServeSettings)
    store: StoreSettings = msgspec.field(default_factory=StoreSettings)
    train: TrainSettings = msgspec.field(default_factory=TrainSettings)
    content: ContentSettings = msgspec.field(default_factory=ContentSettings)
    collect: CollectSettings = msgspec.field(default_factory=CollectSettings)
    kafka: KafkaSettings = msgspec.field(default_factory=KafkaSettings)
    explore: ExploreSettings = msgspec.field(default_factory=ExploreSettings)
    interests: NovelSettings = msgspec.field(default_factory=NovelSettings)
    planner: PlannerSettings = msgspec.field(default_factory=PlannerSettings)
    rerank: RerankSettings = msgspec.field(default_factory=RerankSettings)
    privacy: PrivacySettings = msgspec.field(default_factory=PrivacySettings)
    scenarios: dict[str, ScenarioSettings] = {}
    webhooks: dict[str, WebhookSettings] = {}
    mapping: list[Mapping] = []


def storage_error(error: OSError) -> StorageError:
    """Say in the shop's words what the operating system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "free some space and give the same command again; nothing acknowledged is lost"
        return StorageError("the disk is full", value=error.filename, hint=hint)
    hint = "check the path and its permissions, then give the same command again"
    return StorageError(f"the disk refused: {error.strerror or error}", value=error.filename, hint=hint)


def read_config(path: Path) -> ShopConfig:
    """Read ``shop.toml`` strictly.

    Raises:
        ShopError: There is none, it is not TOML, or a key is unknown or of the wrong type (named).
    """
    file = path / CONFIG
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise ShopError(
            "this folder is not a shop", value=str(path), hint=f"run `penchant init {path}`"
        ) from None
    try:
        return msgspec.toml.decode(text, type=ShopConfig)
    except msgspec.ValidationError as error:
        raise ShopError(
            f"{file}: {error}", hint="correct that key; see the reference page on settings"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ShopError(f"{file} is not valid TOML: {error}", hint="correct that line") from None


def write_config(path: Path, config: ShopConfig) -> None:
    """Write ``shop.toml`` atomically, every setting with its value.

    Without mappings the key is left out: after ``mapping = []`` TOML allows no ``[[mapping]]``, and a proposal
    is there to be added at the end of the file.
    """
    plain = _without_none(msgspec.to_builtins(config, builtin_types=(dt.date,)))
    if not plain["mapping"]:
        del plain["mapping"]
    atomic_write(path / CONFIG, msgspec.toml.encode(plain))


def _without_none(value: Any) -> Any:
    """TOML has no null: leave such keys out."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def create_shop(path: Path, request: InitRequest) -> InitReport:
    """Make a folder into a shop.

    Raises:
        ShopError: It already is one, or it holds other files.
    """
    if (path / CONFIG).exists():
        raise ShopError(
            "this folder is a shop already", value=str(path), hint="ingest into it, or choose another"
        )
    if path.exists() and not path.is_dir():
        raise InputError("a shop is a folder, this is a file", value=str(path), hint="choose another path")
    if path.is_dir() and any(path.iterdir()):
        raise ShopError(
            "this folder holds other files", value=str(path), hint="choose an empty or a new folder"
        )
    path.mkdir(parents=True, exist_ok=True)
    name = request.name or path.resolve().name or "shop"
    write_config(path, ShopConfig(name=name, data=Settings(currency=request.currency)))
    give_identity(path)
    flag = f"--shop {path}"
    return InitReport(
        path=str(path),
        name=name,
        currency=request.currency,
        next=[
            f"penchant catalog {flag} ITEMS.csv",
            f"penchant ingest {flag} EVENTS.csv",
            f"penchant train {flag}",
            f"penchant recommend {flag} --user-id SOMEBODY",
        ],
    )


def _open_vault(path: Path, config: ShopConfig, *, readonly: bool) -> Vault | None:
    """The keys of people, where the shop is sealed.

    Raises:
        ShopError: It was sealed and is to be so no longer, or its key is not there.
    """
    file = path / "vault.db"
    if not config.privacy.encrypt:
        if file.exists():
            raise ShopError(
                "this shop is sealed, and the settings say it is not",
                hint="set `encrypt = true` under [privacy] in shop.toml: sealing is for good",
            )
        return None
    from penchant.privacy import Vault, keys_from_environment

    return Vault(file, keys_from_environment(), readonly=readonly)


class Shop:
    """An open shop folder."""

    def __init__(
        self, path: Path, config: ShopConfig, store: ShopStore, clock: Clock, vault: Vault | None = None
    ) -> None:
        self.path = path
        self.config = config
        self.store = store
        self.clock = clock
        self.vault = vault
        self.cursor_key: bytes | None = None  # read when the first cursor is signed
        self.collecting = threading.Lock()  # held from the look at the ids of messages to their commit
        self.consent = ConsentBook(path / "consent.db", config.privacy.consent)

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False, clock: Clock) -> Self:
        """Open the folder; one writer at a time.

        Raises:
            ShopError: It is not a shop, its settings are wrong, or it was written by a newer version.
            ShopBusy: Another process writes to it.
        """
        config = read_config(path)
        if config.version > 1:
            raise ShopError(
                "this shop was made by a newer version of penchant",
                value=config.version,
                hint="upgrade penchant",
            )
        vault = _open_vault(path, config, readonly=readonly)
        try:
            # Two processes could each make a key for the same person and lose one: a sealed shop has one writer.
            servers = config.store.servers(
                identity_of(path, config.store.used, config.name, readonly=readonly),
                alone=config.privacy.encrypt,
            )
            store = open_store(path, readonly=readonly, clock=clock, cipher=vault, servers=servers)
            return cls(path, config, store, clock, vault)
        except BaseException:
            if vault is not None:
                vault.close()
            raise

    @cached_property
    def pseudonyms(self) -> Pseudonyms | None:
        """Makes the pseudonyms that the shop keeps in place of ids; None where it keeps the ids."""
        return Pseudonyms(self.path / "pseudonyms.key") if self.config.privacy.pseudonymise else None

    @property
    def erasures(self) -> Path:
        """The file that notes erasures, for a restore."""
        given = self.config.privacy.erasures
        return self.path / given if given else self.path / "erasures.log"

    @cached_property
    def quarantine(self) -> Quarantine:
        """Where refused rows are kept."""
        return Quarantine(self.path / "quarantine")

    @property
    def artifacts(self) -> Path:
        """Folder of what was learned."""
        return self.path / "artifacts"

    @property
    def content(self) -> Path:
        """Folder of the vectors of texts and pictures; can be deleted at will."""
        return self.path / "content"

    @property
    def snapshots(self) -> Path:
        """Folder of arrays made from the events; can be deleted at will."""
        return self.path / "snapshots"

    @property
    def runs(self) -> Path:
        """Folder of unfinished training; can be deleted at will."""
        return self.path / "runs"

    def add_mapping(self, mapping: Mapping) -> None:
        """Write a mapping into ``shop.toml``, in place of one of the same name."""
        config = read_config(self.path)  # another process may have changed it since
        others = [m for m in config.mapping if m.name != mapping.name]
        self.config = msgspec.structs.replace(config, mapping=[*others, mapping])
        write_config(self.path, self.config)

    def set_training(self, kind: str, settings: dict[str, Any]) -> None:
        """Write ``[train.settings.KIND]`` into ``shop.toml``, in place of what stood there."""
        config = read_config(self.path)
        train = msgspec.structs.replace(config.train, settings={**config.train.settings, kind: settings})
        self.config = msgspec.structs.replace(config, train=train)
        write_config(self.path, self.config)

    def reload(self, config: ShopConfig) -> list[str]:
        """Work with other settings from now on; returns the names of the tables that differ."""
        old, self.config = self.config, config
        self.consent.rule = config.privacy.consent
        return [name for name in config.__struct_fields__ if getattr(old, name) != getattr(config, name)]

    def close(self) -> None:
        """Flush and release."""
        self.store.close()
        if self.vault is not None:
            self.vault.close()
