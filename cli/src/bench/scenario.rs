//! What each command does, step by step.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use proto::v2;
use tokio::time;

use super::{
    ceiling::{Ceiling, CeilingArgs},
    connection::Client,
    consume::{ConsumeArgs, Consumers},
    disk,
    facts::{self, Facts},
    figure::{Figure, Figures},
    hop::HopArgs,
    load::LoadArgs,
    marks::Marks,
    produce::{self, Produced},
    progress::Progress,
    round_trip::{self, RoundTripArgs},
    template::Run,
};
use crate::output::Report;

/// How long a new topic may take to appear in the routes.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A cluster that is ready for load.
struct Target {
    address: String,
    clients: Vec<Client>,
    queues: Vec<v2::MessageQueue>,
    facts: Facts,
    run: Run,
}

impl Target {
    async fn prepare(load: &LoadArgs) -> Result<Self> {
        load.check()?;
        let run = Run::new();
        let (mut clients, address) =
            Client::open(&load.endpoint, load.connections, run, load.timeout).await?;
        if load.streamed {
            for client in &mut clients {
                client.stream().await?;
            }
        }
        let queues = match load.create_topic {
            None => clients[0].route(&load.topic).await?,
            Some(queues) => {
                facts::ensure_topic(&address, &load.topic, queues.get()).await?;
                wait_for_route(&clients[0], load).await?
            }
        };
        let facts = Facts::gather(&address, load).await;
        Ok(Self { address, clients, queues, facts, run })
    }

    async fn produce(&self, load: &LoadArgs, progress: &Progress) -> Result<Produced> {
        let window = produce::window(load);
        let produced =
            produce::run(load, &self.clients, &self.queues, self.run, window, None, progress)
                .await?;
        if produced.sends.messages == 0 {
            bail!("{} took no message: {:?}", self.address, produced.sends.failures);
        }
        Ok(produced)
    }

    fn figure(&self, what: &str, load: &LoadArgs, produced: &Produced) -> Figure {
        let what = if load.streamed { format!("streamed {what}") } else { what.to_owned() };
        Figure::of_sends(&what, &self.address, &self.facts, load, produced)
    }
}

async fn wait_for_route(client: &Client, load: &LoadArgs) -> Result<Vec<v2::MessageQueue>> {
    let deadline = Instant::now() + ROUTE_TIMEOUT;
    loop {
        match client.route(&load.topic).await {
            Ok(queues) => return Ok(queues),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("the new topic does not appear in the routes"));
            }
            Err(_) => time::sleep(POLL).await,
        }
    }
}

pub(super) async fn produce(
    load: &LoadArgs,
    ceiling: &CeilingArgs,
    as_json: bool,
) -> Result<Report> {
    let target = Target::prepare(load).await?;
    let progress = Progress::new(as_json);
    let mut figures = Figures::new(disk::measure(&load.disk).await?);
    let produced = target.produce(load, &progress).await?;
    let figure = target.figure("send", load, &produced);
    figures.push(figure.clone());
    if let Some(ceiling) = Ceiling::find(ceiling).await? {
        let load =
            LoadArgs { endpoint: ceiling.address.clone(), create_topic: None, ..load.clone() };
        let echo = Target { facts: Facts::of_an_echo(), ..Target::prepare(&load).await? };
        let highest = echo.produce(&load, &progress).await?;
        let highest = echo.figure("send to an echo", &load, &highest);
        figures.push(highest.clone());
        figures.ratio("messages a second, of an echo's", figure.per_second(), highest.per_second());
    }
    Ok(figures.into_report())
}

pub(super) async fn consume(load: &LoadArgs, args: &ConsumeArgs, as_json: bool) -> Result<Report> {
    args.check()?;
    let target = Target::prepare(load).await?;
    let mut figures = Figures::new(disk::measure(&load.disk).await?);
    let window = produce::window(load);
    let consumers = Consumers::start(
        args,
        &load.topic,
        &target.clients,
        target.queues.clone(),
        target.run,
        window,
    );
    let mut clock = tokio::task::JoinSet::new();
    clock.spawn(time::sleep_until(window.to.into()));
    let received = || consumers.received();
    Progress::new(as_json).watch("receiving", window, received, &mut clock).await?;
    let consumed = consumers.stop().await?;
    if consumed.receives.messages == 0 {
        bail!(
            "group {} received no message of topic {}: send some with `mqbench produce`, or use \
             another --group; failures: {:?}",
            args.group,
            load.topic,
            consumed.receives.failures
        );
    }
    Figure::of_consumption(&target.address, &target.facts, load, args, &consumed)
        .into_iter()
        .for_each(|figure| figures.push(figure));
    Ok(figures.into_report())
}

pub(super) async fn both(load: &LoadArgs, args: &ConsumeArgs, as_json: bool) -> Result<Report> {
    args.check()?;
    let target = Target::prepare(load).await?;
    let (receiving, _) =
        Client::open(&target.address, load.connections, target.run, load.timeout).await?;
    let mut figures = Figures::new(disk::measure(&load.disk).await?);
    let window = produce::window(load);
    let queues = target.queues.clone();
    let consumers = Consumers::start(args, &load.topic, &receiving, queues, target.run, window);
    let stored = Arc::new(Mutex::new(Marks::default()));
    let marks = Some(Arc::clone(&stored));
    let progress = Progress::new(as_json);
    let produced =
        produce::run(load, &target.clients, &target.queues, target.run, window, marks, &progress)
            .await?;

    let stored = stored.lock().expect("the senders are gone").clone();
    let ended = Instant::now();
    while consumers.missing(&stored) > 0 && ended.elapsed() < args.drain {
        time::sleep(POLL).await;
    }
    let (missing, drained) = (consumers.missing(&stored), ended.elapsed());
    let consumed = consumers.stop().await?;

    let seconds = produced.sends.seconds;
    figures.push(target.figure("send", load, &produced));
    Figure::of_consumption(&target.address, &target.facts, load, args, &consumed)
        .into_iter()
        .for_each(|figure| figures.push(figure));
    if let Some(way) = consumed.send_to_receive {
        let (address, facts) = (&target.address, &target.facts);
        let mut way = Figure::of_latency("send to receive", address, facts, load, way, seconds);
        (way.in_flight, way.batch) = (load.in_flight, load.batch);
        figures.push(way);
    }
    figures.note(format!(
        "{} messages acknowledged, {missing} of them not received, {} received twice; the last \
         arrived {} ms after sending ended",
        stored.count(),
        consumed.duplicates,
        drained.as_millis()
    ));
    let report = figures.into_report();
    if stored.count() == 0 {
        bail!("no message was acknowledged\n{}", report.text());
    }
    if missing > 0 {
        bail!(
            "{missing} of {} acknowledged messages did not arrive within {} s (a message whose \
             delivery got lost comes again after --invisible {} s)\n{}",
            stored.count(),
            args.drain.as_secs(),
            args.invisible.as_secs(),
            report.text()
        );
    }
    Ok(report)
}

pub(super) async fn send_to_receive(load: &LoadArgs, args: &RoundTripArgs) -> Result<Report> {
    args.consume.check()?;
    let load = &load.clone().one_at_a_time();
    let target = Target::prepare(load).await?;
    // The waiting polls get a connection of their own.
    let (waiting, _) = Client::open(&target.address, 1, target.run, load.timeout).await?;
    let mut figures = Figures::new(disk::measure(&load.disk).await?);
    let began = Instant::now();
    let trips =
        round_trip::run(load, args, &target.clients[0], &waiting[0], &target.queues, target.run)
            .await?;
    let seconds = began.elapsed().as_secs_f64();
    let (address, facts) = (&target.address, &target.facts);
    figures.push(Figure::of_latency("send", address, facts, load, trips.send, seconds));
    let way = trips.send_to_receive;
    figures.push(Figure::of_latency("send to receive", address, facts, load, way, seconds));
    Ok(figures.into_report())
}

pub(super) async fn hop(load: &LoadArgs, args: &HopArgs, as_json: bool) -> Result<Report> {
    let (leader, other) = args.find(&load.endpoint).await?;
    let progress = Progress::new(as_json);
    let mut figures = Figures::new(disk::measure(&load.disk).await?);
    let mut measured = Vec::new();
    for (what, address) in [("send to the leader", leader), ("send to another node", other)] {
        let load = LoadArgs { endpoint: address, ..load.clone() };
        let target = Target::prepare(&load).await.context(what)?;
        let produced = target.produce(&load, &progress).await.context(what)?;
        let figure = target.figure(what, &load, &produced);
        figures.push(figure.clone());
        measured.push(figure);
    }
    let [direct, forwarded] = measured.as_slice() else { unreachable!("two were measured") };
    let what = "messages a second, forwarded over direct";
    figures.ratio(what, forwarded.per_second(), direct.per_second());
    if let (Some(direct), Some(forwarded)) = (direct.p50_ms(), forwarded.p50_ms()) {
        figures.ratio("p50, forwarded over direct", forwarded, direct);
        figures.note(format!("the hop adds {:.2} ms at p50", forwarded - direct));
    }
    Ok(figures.into_report())
}
