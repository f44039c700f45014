//! `make demo`: a real file streams through a cluster whose leader is killed half way.
//!
//! Two NameServers and three brokers run as processes of their own. Producers send one message per
//! line and a consumer group receives them; when half is acknowledged, the leader gets SIGKILL and
//! stays dead. At the end every acknowledged message must have arrived, or the demo fails.

#![allow(clippy::print_stdout, reason = "the demo talks to its user")]

mod input;
mod show;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jepsen::{Action, Fate};
use proto::v2;
use tests::consumer::{BATCH, INVISIBLE};
use tests::producer::message_of;
use tests::{Cluster, Consumer, Producer};
use tokio::sync::watch;

use crate::input::Input;
use crate::show::Show;

const TOPIC: &str = "package-log";
const GROUP: &str = "readers";
/// Sends under way at a time.
const IN_FLIGHT: usize = 64;
const CONSUMERS: usize = 8;
/// How long the last messages may take to arrive after the last send.
const DRAIN: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool> {
    let input = Arc::new(Input::open()?);
    println!("\nRaftMQ: a file through a cluster whose leader dies half way\n");
    println!("  input    {input}");
    println!(
        "  cluster  2 NameServers; 3 brokers, one Raft group; an acknowledgement means that two"
    );
    println!("           of three have the message on disk (fsync)\n");

    let start = Instant::now();
    let plan = Cluster::of(3).nameservers(2).set("auto_create_topics", "true");
    let cluster = plan.start().await;
    let (leader, status) = cluster.leader().await;
    println!("  up after {:.1} s; broker {} leads in term {}", secs(start), leader.id, status.term);

    // Clients know the NameServers alone, and these forward to whoever leads.
    let access: Vec<_> = cluster.nameservers.iter().map(|n| n.address).collect();
    let lines = Arc::clone(&input);
    let producer = Producer::new(&access, TOPIC, &cluster.ledger)
        .with_bodies(Arc::new(move |message| lines.line(message.count())));
    println!(
        "  {IN_FLIGHT} producers send to topic {TOPIC:?}, {CONSUMERS} consumers of group {GROUP:?} receive\n"
    );

    let (stop, stopped) = watch::channel(false);
    let consumers = consume(&cluster, &access, &input, &stopped).await?;
    let show = Show::start(&cluster, GROUP, input.count(), stopped);
    let sends = tokio::spawn(async move { producer.send(input.count(), IN_FLIGHT).await });

    let half = wait_for_half(&cluster, &show).await;
    let killed = kill_the_leader(&cluster, &show).await;
    let acknowledged = sends.await?;
    let gap = write_gap(&cluster, killed);
    show.say(&format!(
        "writes paused for {gap} ms around the kill (at {half} acknowledged); broker {} leads now",
        cluster.leader().await.0.id
    ));
    let drained = drain(&cluster, acknowledged).await;
    stop.send(true)?;
    consumers.join_all().await;
    show.finish().await;

    let verdict = cluster.ledger.verdict(&[GROUP]);
    println!("\n  sent          {:>9}", verdict.sent);
    println!("  acknowledged  {:>9}", verdict.acknowledged);
    println!("  received      {:>9}", verdict.received);
    println!("  duplicates    {:>9}", verdict.duplicates);
    println!("  lost          {:>9}", verdict.lost());
    println!("  write gap     {gap:>6} ms  when broker {} was killed\n", killed.broker);
    if !verdict.holds() {
        println!("{verdict}");
    } else if !drained {
        bail!("the consumers were not done {DRAIN:?} after the last send");
    } else {
        println!("  every acknowledged message arrived, unchanged\n");
    }
    cluster.finish().await;
    Ok(verdict.holds())
}

fn secs(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// Starts the consumers, once the topic is there: the first look at its route creates it.
async fn consume(
    cluster: &Cluster,
    access: &[std::net::SocketAddr],
    input: &Arc<Input>,
    stopped: &watch::Receiver<bool>,
) -> Result<tokio::task::JoinSet<()>> {
    let rpc = cluster.nameservers[0].rpc();
    let start = Instant::now();
    while let Err(failure) = rpc.query_route(TOPIC).await {
        if start.elapsed() > DRAIN {
            bail!("no route for the topic: {failure}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..CONSUMERS {
        let lines = Arc::clone(input);
        // A message counts only when its body is the very line that was sent under its number.
        let identify = move |message: &v2::Message| {
            let number = message_of(&message.system_properties.as_ref()?.message_id)?;
            (lines.line(number.count()) == message.body).then_some(number)
        };
        let consumer = Consumer::new(access, GROUP, TOPIC, &cluster.ledger);
        let mut consumer = consumer.identifying_by(Arc::new(identify));
        let stopped = stopped.clone();
        consumers.spawn(async move {
            while !*stopped.borrow() {
                match consumer.receive(BATCH, INVISIBLE, Duration::from_secs(5)).await {
                    Ok(deliveries) if !deliveries.is_empty() => {
                        // An ack that fails leaves the message to be delivered again: a duplicate.
                        let _ = consumer.ack(&deliveries).await;
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
    }
    Ok(consumers)
}

async fn wait_for_half(cluster: &Cluster, show: &Show) -> usize {
    loop {
        let acknowledged = cluster.ledger.acknowledged();
        if acknowledged >= show.count() / 2 {
            return acknowledged;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// When which broker was killed.
#[derive(Clone, Copy)]
struct Killed {
    at: u64,
    broker: u64,
}

async fn kill_the_leader(cluster: &Cluster, show: &Show) -> Killed {
    let (leader, status) = cluster.leader().await;
    let killed = Killed { at: cluster.ledger.now(), broker: leader.id };
    leader.kill();
    show.say(&format!(
        "half way: broker {}, which leads in term {}, gets SIGKILL",
        leader.id, status.term
    ));
    killed
}

/// The longest time between two acknowledgements of which the later came after the kill, in ms.
fn write_gap(cluster: &Cluster, killed: Killed) -> u64 {
    let history = cluster.ledger.history();
    let acknowledged = history.events().iter().filter_map(|event| match event.action {
        Action::Send { fate: Fate::Done, .. } => Some(event.ended),
        _ => None,
    });
    let times: Vec<u64> = acknowledged.collect();
    let gaps = times.windows(2).filter(|pair| pair[1] > killed.at).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(0) / 1_000_000
}

/// Waits until everything that was acknowledged has arrived; false when that takes too long.
async fn drain(cluster: &Cluster, acknowledged: usize) -> bool {
    let start = Instant::now();
    while start.elapsed() < DRAIN {
        if cluster.ledger.received(GROUP) >= acknowledged
            && cluster.ledger.missing(GROUP).is_empty()
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
