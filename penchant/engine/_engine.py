"""The one door: an engine is a shop folder (or a server that has one) and the operations on it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from penchant.core import Clock, ErasureReceipt, Progress, Slate, no_progress, now
from penchant.core.errors import InputError, PenchantError, ShopError
from penchant.data import Health
from penchant.engine import _collect_requests as cr
from penchant.engine import _experiment_requests as xr
from penchant.engine import _govern_requests as gr
from penchant.engine import _interest_requests as ir
from penchant.engine import _requests as rq
from penchant.engine import _training_requests as tr
from penchant.engine._access import log_access
from penchant.engine._operation import OPERATIONS, QUICK, Operation, Remote, operation
from penchant.engine._people import known_person
from penchant.engine._replay_requests import ReplayReport, ReplayRequest

if TYPE_CHECKING:
    from penchant.engine._experiments import Watch
    from penchant.engine._follow import Follower
    from penchant.engine._keeper import Keeper
    from penchant.engine._serving import Serving
    from penchant.engine._shop import Shop
    from penchant.engine._worker import Worker

Answer = TypeVar("Answer")


class Engine:
    """The operations of one shop, embedded (``open``) or on a server (``connect``).

    Every operation takes its request struct, or the request's fields as keywords.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Engine.open(folder) as engine:
        ...     made = engine.init(name="Corner shop", currency="EUR")
        ...     told = engine.observe(events=[{"kind": "view", "user_id": "u1", "item_id": "tea"}])
        ...     engine.recommend(user_id="u2", k=1).items[0].item_id
        'tea'
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        remote: Remote | None = None,
        readonly: bool = False,
        clock: Clock = now,
        progress: Progress = no_progress,
    ) -> None:
        self.readonly = readonly
        self.path = None if path is None else Path(path)
        self.clock = clock
        self.progress = progress
        self._remote = remote
        self._shop: Shop | None = None
        self._serving: Serving | None = None
        self._watch: Watch | None = None
        self._keeper: Keeper | None = None
        self._follower: Follower | None = None
        self._opening = threading.RLock()
        self.tally: Counter[str] = Counter()  # what became of the events told to this engine
        self._tallying = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        readonly: bool = False,
        clock: Clock = now,
        progress: Progress = no_progress,
    ) -> Self:
        """Work on a shop folder in this process. The folder need not be a shop yet: ``init`` makes it one.

        One engine at a time may write to a shop, or several whose events and histories lie on servers that they
        share. A ``readonly`` one works beside it and can train and evaluate, which only read events.
        """
        return cls(path, readonly=readonly, clock=clock, progress=progress)

    @classmethod
    def connect(
        cls, url: str, *, key: str | None = None, progress: Progress = no_progress, timeout: float = 30.0
    ) -> Self:
        """Work on a shop that ``penchant serve`` serves at ``url``.

        Args:
            url: Where the server listens.
            key: An API key of the shop (``keys``), where the server asks for one. It also chooses the shop.
            progress: Told how jobs stand.
            timeout: Seconds to wait for an answer.
        """
        from penchant.engine._remote import HttpRemote

        remote = HttpRemote(url, key=key, timeout=timeout, progress=progress)
        return cls(None, remote=remote, progress=progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and release the shop."""
        with self._opening:
            # Those that write to the shop end before it does.
            for one in (self._keeper, self._follower, self._watch, self._shop):
                if one is not None:
                    one.close()
            self._shop = self._serving = self._watch = self._keeper = self._follower = None

    def _run(self, row: Operation, function: Callable[[Any, Any], Any], request: msgspec.Struct) -> Any:
        """Every call of every operation passes here."""
        row.prepare_outputs(request)
        if self._remote is not None:
            return self._remote.call(row, request)
        if row.names_people:
            request = known_person(self.shop, request)
        started = time.perf_counter()
        outcome = "ok"
        try:
            answer = function(self, request)
            if row.scope not in QUICK and self._shop is not None and self._shop.config.webhooks:
                from penchant.engine._webhooks import announce

                announce(self._shop, row.name, answer)
            return answer
        except PenchantError as error:
            outcome = error.code
            raise
        except OSError as error:
            outcome = "storage"
            from penchant.engine._shop import storage_error

            raise storage_error(error) from error
        finally:
            if self.path is not None and row.scope not in QUICK:
                log_access(self.path, self.clock, row.name, outcome, time.perf_counter() - started)

    @property
    def _folder(self) -> Path:
        """The folder that is a shop, or is to become one."""
        if self.path is None:
            raise ShopError("this engine has no shop folder", hint="use Engine.open(path)")
        return self.path

    @property
    def shop_path(self) -> Path:
        """The shop's folder, for what needs no open store.

        Raises:
            ShopError: It is none.
        """
        from penchant.engine._shop import CONFIG

        if not (self._folder / CONFIG).exists():
            hint = f"run `penchant init {self.path}`"
            raise ShopError("this folder is not a shop", value=str(self.path), hint=hint)
        return self._folder

    @property
    def shop(self) -> Shop:
        """The open shop folder; opened on first use."""
        if self._shop is None:
            from penchant.engine._shop import Shop

            with self._opening:
                if self._shop is None:
                    self._shop = Shop.open(self._folder, readonly=self.readonly, clock=self.clock)
        return self._shop

    @property
    def serving(self) -> Serving:
        """What answers: the promoted model, the catalogue and the policy."""
        if self._serving is None:
            from penchant.engine._serving import Serving

            shop = self.shop
            with self._opening:
                if self._serving is None:
                    self._serving = Serving(shop)
        return self._serving

    def _look(self) -> None:
        """Take up at once what this engine itself has promoted."""
        if self._serving is not None:
            self._serving.refresh()

    def warm(self) -> None:
        """Load the promoted model and the live histories ahead of the first request."""
        self.shop.store.warm(self.progress)
        self.serving.refresh()

    def keep(self) -> None:
        """From now on let a thread take up promotions and catalogues and move the journal, until ``close``.

        For servers: no request waits for a model to load.
        """
        from penchant.engine._follow import Follower
        from penchant.engine._keeper import Keeper

        with self._opening:
            if self._follower is None and self.shop.store.shared:
                self._follower = self.serving.follower = Follower(self.shop, self.serving)
            self._keeper = self._keeper or Keeper(self.shop, self.serving, self._chores)

    def _chores(self) -> list[Worker]:
        """Begin what of several processes that share the shop one alone does."""
        found: list[Worker] = []
        if self.shop.config.kafka.brokers:
            from penchant.engine._kafka import Feed

            found.append(Feed(self.shop, self.serving))
        if self.shop.config.webhooks:
            from penchant.engine._webhooks import Deliverer

            found.append(Deliverer(self.shop))
        return found

    # -- manage: from a raw export to a promoted model ------------------------------------------------

    @operation(scope="manage", creates_shop=True)
    def init(self, request: rq.InitRequest) -> rq.InitReport:
        """Make a folder into a shop.

        Writes ``shop.toml`` with every setting and its default. A folder that already is a shop is refused.
        """
        from penchant.engine._shop import create_shop

        return create_shop(self._folder, request)

    @operation(scope="manage", job=True)
    def ingest(self, request: rq.IngestRequest) -> rq.IngestReport:
        """Read event files or user tables into the shop.

        The dialect is recognised by the columns; unknown columns get a proposed mapping. Refused rows go to
        the quarantine with their reason and row number. The same file ingested twice changes nothing. The command
        ends with exit code 7 when rows could not be believed (``broken`` in the answer); good ones are stored.
        """
        from penchant.engine._ingest import ingest

        return ingest(self.shop, request, self.progress)

    @operation(scope="manage", job=True)
    def catalog(self, request: rq.CatalogRequest) -> rq.IngestReport:
        """Read catalogue files into the shop; rows replace earlier rows of the same id."""
        from penchant.engine._ingest import read_catalog_files

        return read_catalog_files(self.shop, request, self.progress)

    @operation(scope="manage")
    def stock(self, request: rq.StockRequest) -> rq.StockReport:
        """Change availability, quantity, price or cost of items; the very next answers know.

        Other servers of the shop take it up within a second. The rest of the catalogue stays, and no model is loaded
        anew.
        """
        from penchant.engine._stock import change_stock

        report = change_stock(self.shop, request)
        self._look()
        return report

    @operation(scope="manage", job=True, isolated=True)
    def doctor(self, request: rq.DoctorRequest) -> Health:
        """Examine the data at rest: what is wrong, what it costs, what to do."""
        from penchant.engine._ingest import doctor

        return doctor(self.shop, request, self.progress)

    @operation(scope="write", reads=rq.ObservedRequest, together="observe_all")
    def observe(self, request: rq.ObserveRequest) -> rq.ObserveReport:
        """Tell the shop what just happened; the very next recommendation knows it.

        Events are on disk when this returns. Each event has its own result: one that cannot be believed, or has
        an unknown kind, or a field of a wrong name or type, is refused alone with its reason.
        """
        from penchant.engine._live import observe

        return self._counted([observe(self.shop, self.serving, request)])[0]

    def observe_all(self, requests: Sequence[rq.ObserveRequest]) -> list[rq.ObserveReport | PenchantError]:
        """Answer several ``observe`` requests with one commit; an error stands in the place of its answer."""
        from penchant.engine._live import observe_all

        return self._counted(observe_all(self.shop, self.serving, requests))

    def _counted(self, answers: list[Answer]) -> list[Answer]:
        """The same answers, after what became of their events was counted; errors have none."""
        reports = [one for one in answers if isinstance(one, (rq.ObserveReport, cr.CollectReport))]
        with self._tallying:
            self.tally.update(result.status for report in reports for result in report.results)
        return answers

    @operation(scope="write", reads=cr.CollectedRequest, together="collect_all")
    def collect(self, request: cr.CollectRequest) -> cr.CollectReport:
        """Tell the shop what just happened in the words of another system; ``observe`` for its messages.

        Segment and RudderStack calls, GA4 events, Google Retail and Shopify events are read by the same dialects as
        files of them. Calls of ``identify`` and ``alias`` join a guest to a user. What is stored is on disk when this
        returns; a message sent again counts once, and one that has another's id is refused and kept aside.
        """
        from penchant.engine._collect import collect

        return self._counted([collect(self.shop, self.serving, request)])[0]

    def collect_all(self, requests: Sequence[cr.CollectRequest]) -> list[cr.CollectReport | PenchantError]:
        """Answer several ``collect`` requests with one commit; an error stands in the place of its answer."""
        from penchant.engine._collect import collect_all

        return self._counted(collect_all(self.shop, self.serving, requests))

    @operation(scope="manage", job=True)
    def consume(self, request: cr.ConsumeRequest) -> cr.ConsumeReport:
        """Read the topics of the ``[kafka]`` settings to their ends.

        Goes on where the stored events end: each message is stored once, however often this is called or broken off. A
        server does it by itself all the time.
        """
        from penchant.engine._kafka import consume

        return consume(self.shop, self.serving, self.progress)

    @operation(scope="manage")
    def webhooks(self, request: cr.WebhooksRequest) -> cr.WebhooksReport:
        """Look at messages that the shop's webhooks have not taken, and try those given up once more.

        A server sends each message until it is answered with 2xx: twelve times within some two and a half hours, then
        it is given up and kept here.
        """
        from penchant.engine._webhooks import webhooks

        return webhooks(self.shop, request)

    @operation(scope="manage")
    def dead_letters(self, request: cr.DeadLettersRequest) -> cr.DeadLettersReport:
        """Look at live events that were refused and kept aside, each with its reason.

        They can be mended and sent to ``observe``. The newest ten thousand are kept.
        """
        from penchant.engine._collect import dead_letters

        return dead_letters(self.shop, request)

    @operation(scope="manage", job=True, isolated=True)
    def train(self, request: tr.TrainRequest) -> tr.TrainReport:
        """Learn from everything stored, choose on a held-out time window, and promote the best.

        A run that was killed goes on where it was when the same command is given again. With ``update`` the
        serving model learns on from what is new since it learned, in a small part of the time. Either way a model
        that the newest events call worse than the one that serves is kept, but does not serve.
        """
        from penchant.engine._train import train

        return train(self.shop, request, self.progress)

    @operation(scope="manage", job=True, isolated=True)
    def tune(self, request: tr.TuneRequest) -> tr.TuneReport:
        """Search the sequence model's settings for so many minutes.

        The settings that stand are measured first; what is found is never worse than they are on the people who
        choose, and what it gains is told on people who had no say. The same command given again goes on with the
        same search, also where it was stopped, until the data or the settings change. ``apply`` writes the settings
        to ``shop.toml``; the next ``train`` learns with them.
        """
        from penchant.engine._tune import tune

        return tune(self.shop, request, self.progress)

    @operation(scope="manage")
    def sizes(self, request: tr.SizesRequest) -> tr.SizesReport:
        """Ask what every size of the sequence model costs: parameters, memory, operations.

        Computed from the settings, nothing is trained. Memory is that of one process in float32 with histories of full
        length; sizes that one machine does not hold are sharded over the processes of ``torchrun``.
        """
        from penchant.engine._sizes import sizes

        return sizes(self.shop, request)

    @operation(scope="manage", job=True, isolated=True)
    def recount(self, request: tr.RecountRequest) -> tr.RecountReport:
        """Count again what people turn to and in which order, and let the promoted model serve with it.

        The network stays as it was trained; its counted half learns what happened since. Takes seconds. A batch of
        recommendations does it by itself when events have come in (``[serve] recount``).
        """
        from penchant.engine._recount import recount

        report = recount(self.shop, self.progress)
        self._look()
        return report

    @operation(scope="manage", job=True, isolated=True)
    def evaluate(self, request: tr.EvaluateRequest) -> tr.LeaderboardReport:
        """Measure on the newest time window, on people who took no part in any choice.

        Everything is fitted anew on what came before that window; half of the people in it choose, the other half
        is measured. Popularity, recent popularity, item-kNN and counted transitions are always beside it.
        """
        from penchant.engine._evaluate import evaluate

        return evaluate(self.shop, request, self.progress)

    @operation(scope="manage", job=True, isolated=True)
    def compare(self, request: tr.CompareRequest) -> tr.LeaderboardReport:
        """Measure several models side by side on the newest time window, with paired differences."""
        from penchant.engine._evaluate import compare

        return compare(self.shop, request, self.progress)

    @operation(scope="manage", job=True, isolated=True)
    def replay(self, request: ReplayRequest) -> ReplayReport:
        """Ask what another policy would have earned, from what was logged.

        Reads the shop's own decision log, or a log file of any system that wrote down its odds. Gives the value with
        its interval, by parts too, and one of: worth an A/B test, not enough support (with the reason), worse.
        """
        from penchant.engine._replay import replay

        return replay(self.shop, self.serving, request, self.progress)

    # -- manage: experiments --------------------------------------------------------------------------

    @operation(scope="manage")
    def start_experiment(self, request: xr.StartExperimentRequest) -> xr.Experiment:
        """Begin an experiment: from now on everybody has an arm.

        How many people it needs is worked out from the days before, unless ``people`` says so.
        """
        from penchant.engine._experiments import start

        return start(self.shop, request)

    @operation(scope="serve")
    def assign(self, request: xr.AssignRequest) -> xr.Assignment:
        """Ask which arm somebody is in: always the same one, without anything being stored.

        Once a minute this also begins a look at the guardrails; a broken one stops the experiment, and everybody
        is in the control from then on.
        """
        from penchant.engine._experiments import Watch, assign

        assigned = assign(self.shop, request)
        if assigned.running and not self.readonly:
            with self._opening:
                self._watch = self._watch or Watch(self.shop)
            self._watch.due(assigned.experiment)
        return assigned

    @operation(scope="manage", job=True)
    def report_experiment(self, request: xr.ReportExperimentRequest) -> xr.ExperimentReport:
        """Look at an experiment: what to do, why, and how sure that is, however often one looks.

        A guardrail that is broken stops it; so does the planned number of people.
        """
        from penchant.engine._experiments import report

        return report(self.shop, request, readonly=self.readonly)

    @operation(scope="manage")
    def stop_experiment(self, request: xr.StopExperimentRequest) -> xr.Experiment:
        """End an experiment: everybody is in the control from now on, and its report no longer changes."""
        from penchant.engine._experiments import stop

        return stop(self.shop, request.name, request.why)

    @operation(scope="manage")
    def promote(self, request: rq.PromoteRequest) -> rq.PromotionReport:
        """Let a model serve. It is checked first; running servers take it up within a second."""
        from penchant.engine._models import promote

        report = promote(self.shop, request)
        self._look()
        return report

    @operation(scope="manage")
    def rollback(self, request: rq.RollbackRequest) -> rq.PromotionReport:
        """Return to the model that served before."""
        from penchant.engine._models import rollback

        report = rollback(self.shop, request)
        self._look()
        return report

    @operation(scope="manage")
    def reload(self, request: gr.ReloadRequest) -> gr.ReloadReport:
        """Read ``shop.toml`` anew without a restart.

        Settings of serving, exploring and consent act from the next request on. Wrong settings are refused by
        name, and the old ones stay. A server does the same when it gets SIGHUP.
        """
        from penchant.engine._shop import read_config

        config = read_config(self.shop_path)
        changed = self.shop.reload(config)
        if self._serving is not None:
            self._serving.forget()
        return gr.ReloadReport(changed=changed)

    # -- serve ----------------------------------------------------------------------------------------

    @operation(scope="serve", together="recommend_all")
    def recommend(self, request: rq.RecommendRequest) -> Slate | rq.BatchReport:
        """Ask for items for one person, or for many at once.

        One person: a slate with odds and reasons, fresh to the last observed event, for a known user, a
        guest or somebody brand new. Many (``users``): a Parquet file with user_id, rank, item_id and score.
        """
        from penchant.engine._live import recommend

        if request.users is not None:
            from penchant.engine._batch import recommend_many

            return recommend_many(self.shop, self.serving, request, self.progress)
        if request.out is not None:
            raise InputError(
                "a file is written for many people only",
                path="$.out",
                hint="give --users FILE or --users all, or leave --out away",
            )
        return recommend(self.shop, self.serving, request)

    def recommend_all(self, requests: Sequence[rq.RecommendRequest]) -> Iterable[Slate | Exception]:
        """Answer several ``recommend`` requests for one person each, scored together; each as soon as it is there.

        An error stands in the place of its answer. What is asked for many people belongs to ``recommend``.
        """
        from penchant.engine._live import recommend_all

        known = [known_person(self.shop, request) for request in requests]
        return recommend_all(self.shop, self.serving, known)

    @operation(scope="serve")
    def similar(self, request: rq.SimilarRequest) -> rq.SimilarReport:
        """Ask for the companions of an item, best first."""
        from penchant.engine._live import similar

        return similar(self.serving, request)

    @operation(scope="serve")
    def search(self, request: rq.SearchRequest) -> rq.SearchReport:
        """Search the catalogue: typing errors are forgiven, what the person likes comes first.

        Words are looked for in title, brand, category, labels and description. Where an encoder has read the
        catalogue, texts that are near in meaning are found too.
        """
        from penchant.engine._search import search

        return search(self.shop, self.serving, request)

    @operation(scope="serve")
    def profile(self, request: rq.ProfileRequest) -> rq.Profile:
        """Ask what a person is interested in: weighted tags for now, month and lifetime, with evidence."""
        from penchant.engine._profile import profile

        return profile(self.shop, self.serving, request)

    @operation(scope="serve")
    def interests(self, request: ir.InterestsRequest) -> ir.InterestsReport:
        """See the map of interests: what the shop's items are about, and which interest comes after which."""
        from penchant.engine._interests import interests

        return interests(self.shop, self.serving, request)

    @operation(scope="manage", job=True, isolated=True)
    def plan(self, request: ir.PlanRequest) -> ir.PlanReport:
        """Let the shop's language model plan which new interests to try on people.

        It is asked once for every set of interests that enough people hold, and told their names alone. Plans are
        kept and looked up by ``recommend``, which never waits for a model; they count as much as they help to tell
        what people of the log took up next. A run that was stopped goes on where it was.
        """
        from penchant.engine._plan import plan

        report = plan(self.shop, request, self.progress)
        self._look()
        return report

    @operation(scope="serve")
    def prefer(self, request: ir.PreferRequest) -> ir.OwnInterests:
        """Note what a person wants: less exploring or none, interests rejected or taken back.

        Kept as an event; the very next recommendation follows it. A single item is turned down by observing an
        event of the kind ``not_interested``.
        """
        from penchant.engine._interests import prefer

        return prefer(self.shop, self.serving, request)

    # -- govern ---------------------------------------------------------------------------------------

    @operation(scope="govern")
    def keys(self, request: gr.KeysRequest) -> gr.KeysReport:
        """List, create, rotate or revoke the API keys of the shop.

        A key is shown once, when it is made; the shop keeps a hash of it alone. As soon as there is a key, a
        server of this shop answers nobody without one. It acts on running servers at once.
        """
        from penchant.engine._keys import change_keys

        return change_keys(self.shop_path, request, self.clock)

    @operation(scope="govern", job=True)
    def backup(self, request: gr.BackupRequest) -> gr.BackupReport:
        """Write a backup while the shop goes on serving.

        It holds what cannot be made again: events, answers, catalogue, attributes, models, settings, API keys,
        consents. The keys of people of a sealed shop go to a file of their own. Keep both where only you read them.
        """
        from penchant.engine._backup import backup

        return backup(self.shop, request, self.progress)

    @operation(scope="govern", creates_shop=True)
    def restore(self, request: gr.RestoreRequest) -> gr.RestoreReport:
        """Make a shop from a backup, in a folder that is none yet.

        Every file is compared with its checksum. People whose erasure was noted since (``erasures.log``) are erased
        again before anything is served.
        """
        from penchant.engine._backup import restore

        return restore(self._folder, request, self.clock, self.progress)

    @operation(scope="govern", job=True)
    def drill(self, request: gr.DrillRequest) -> gr.DrillReport:
        """Prove that the backup can be restored: restore it aside, read every event, answer a request.

        What was restored is thrown away. It needs room for the backup and the shop in the temporary folder.
        """
        from penchant.engine._backup import drill

        return drill(self, request, self.progress)

    @operation(scope="govern")
    def consent(self, request: gr.ConsentRequest) -> gr.ConsentReport:
        """Note what a person allows, or ask what holds.

        A withdrawal acts on answers at once and on models at the next training. Who allows nothing has no events
        stored. Events that carry ``consent`` say the same. What is stored already stays until ``erase_user``.
        """
        from penchant.engine._people import consent

        return consent(self.shop, request)

    @operation(scope="govern")
    def access_log(self, request: gr.AccessLogRequest) -> gr.AccessLogReport:
        """Ask who did what: every call of a manage or govern operation, newest first.

        An entry names the operation, the key and how it ended. It holds no data of persons.
        """
        from penchant.engine._access import read_access

        return read_access(self.shop_path, request)

    @operation(scope="govern")
    def status(self, request: rq.StatusRequest) -> rq.Status:
        """Ask how the shop stands: what is stored, what serves, what is degraded."""
        from penchant.engine._models import status

        return status(self.shop, self.serving)

    @operation(scope="govern", job=True)
    def erase_user(self, request: rq.EraseRequest) -> ErasureReceipt:
        """Remove a person from everything, and prove it by a byte search.

        Where the search still finds the id, the error ``erasure_incomplete`` names the files.
        """
        from penchant.engine._govern import erase_user

        try:
            return erase_user(self.shop, request)
        finally:
            if self._serving is not None:
                self._serving.forget()

    @operation(scope="govern", job=True)
    def export_user(self, request: rq.ExportRequest) -> rq.ExportReport:
        """Give out everything kept about a person."""
        from penchant.engine._govern import export_user

        return export_user(self.shop, self.serving, request)


__all__ = ["OPERATIONS", "Engine"]
