//! What the broker can do: one file an operation, no wire types of answers, no status codes.
//!
//! Each operation looks at the replicated state, proposes a command, and says what became of it.
//! All of them run on the leader; on another node they say so and do nothing.

mod ack;
mod admin;
mod administration;
mod alarm;
mod assemble;
mod dead_letter;
mod delayed;
mod disk;
mod doubt;
mod give_back;
mod groups;
mod in_flight;
mod invisible;
mod judge;
mod live;
mod offsets;
mod orphans;
mod pick;
mod pick_fifo;
mod pull;
mod queries;
mod quota;
mod receive;
mod receive_fifo;
mod runtime;
mod send;
mod send_half;
mod sown;
mod standing;
mod timers;
mod topics;
mod transactions;
mod view;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use commitlog::Bug;
use proto::{BrokerName, message::Rules};
use raft::{Group, LogOffset, Role};
use tokio::sync::watch;

pub use ack::Acknowledged;
pub use admin::{GroupSpec, QueueRange, TopicSpec};
pub use alarm::Alarm;
pub use disk::{Disk, DiskSettings, ReplicaDisk, Space};
pub use offsets::Spot;
pub use orphans::{Asked, Unheard};
pub use pull::{Misplaced, Pull, Pulled, pulling_time};
pub use queries::{Answer, Found, Query, Question, Track};
pub use receive::{Delivered, Delivery, Poll, Taking, invisible_duration, polling_time};
pub use send::Sent;
pub use timers::{ListedTimer, ListedTimers, TimerSpan};
pub use transactions::ListedTransaction;
pub use view::{Head, Signals, View};

use crate::{
    Error,
    command::{Command, Outcome, level},
    config::Book,
    delivery::{Budget, Lanes, Readers, Waiting},
    fault::Fault,
    filter::Compiled,
    metrics::Metrics,
    sessions::{Clients, Couriers, HandedOut},
    state::Machine,
};

/// Between the answer to a proposal and the caller's deadline: the way back takes time too.
const WAY_BACK: Duration = Duration::from_millis(50);
/// A look-up that takes longer is given up: the caller has a deadline of a few seconds.
pub const LONGEST_LOOK_UP: Duration = Duration::from_secs(3);
/// Bytes of messages after which an answer takes no further one.
const ANSWER_BYTES: u64 = 4 << 20;
/// More bytes than this are read and digested away from the threads that serve requests.
const INLINE_BYTES: u64 = 1 << 20;
/// The end of the log that was written so recently that it is in memory.
const WARM_BYTES: u64 = 64 << 20;
/// Half of the request timeout that clients add to the time they want to wait.
const CLIENT_RESERVE: Duration = Duration::from_millis(1500);
/// The empty answer must arrive before the deadline.
const ANSWER_RESERVE: Duration = Duration::from_millis(100);
/// Answers with messages that no access point has confirmed. Each is of about 40 bytes a message.
const ANSWERS_ON_THEIR_WAY: usize = 32_768;
/// A proposal that nobody waits longer for has an unknown outcome.
pub(crate) const LONGEST_PROPOSAL: Duration = Duration::from_secs(30);

/// Settings of the operations.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The group's name.
    pub name: BrokerName,
    /// What others are told this node's address is.
    pub advertised: String,
    /// Everything that the node was set to, for what can be changed while it runs.
    pub book: Book,
    /// Bounds on the disk.
    pub disk: DiskSettings,
    /// Receive calls that wait at a time.
    pub long_polls: usize,
    /// Bytes of sends in progress.
    pub send_bytes: usize,
    /// Bytes of deliveries in progress.
    pub receive_bytes: usize,
    /// Clients registered.
    pub clients: usize,
    /// For tests.
    pub fault: Fault,
}

/// What a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Everything that was stored before it began.
    Latest,
    /// What this replica has applied.
    Applied,
}

/// How much is kept where topics do not say.
#[derive(Debug, Clone, Copy)]
pub struct RetentionSettings {
    /// How long messages are kept; `None` is for ever.
    pub time: Option<Duration>,
    /// The same for dead letters.
    pub dead_letter_time: Option<Duration>,
    /// Bytes of the log, in whole segments; 0 is without bound.
    pub bytes: u64,
}

/// When producers are asked about transactions that they have not ended.
#[derive(Debug, Clone, Copy)]
pub struct TransactionSettings {
    /// Before the first time, unless the message says otherwise.
    pub timeout: Duration,
    /// Between two times.
    pub check_interval: Duration,
    /// How often; then the transaction is given up.
    pub check_max: u32,
    /// An older transaction is given up, however often it was asked about.
    pub max_age: Duration,
}

/// Settings of the operations that can be changed while they run.
#[derive(Debug, Clone)]
pub struct Tunables {
    /// Create a topic when it is first used.
    pub auto_create_topics: bool,
    /// With so many queues.
    pub auto_create_queues: u32,
    /// Pulls are answered by the replica that is asked.
    pub follower_reads: bool,
    /// Rules for messages.
    pub rules: Rules,
    /// When producers are asked about transactions that they have not ended.
    pub transactions: TransactionSettings,
    /// How much is kept where topics do not say.
    pub retention: RetentionSettings,
    /// Delayed messages that are delivered in a second at most. Not 0.
    pub timers_per_second: u32,
    /// The shortest invisible duration that a receive may ask for.
    pub invisible_min: Duration,
}

/// One replica of a broker group, as the edge sees it.
#[derive(Debug)]
pub struct Broker {
    pub(crate) settings: Settings,
    pub(crate) group: Group<Machine>,
    pub(crate) view: View,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) lanes: Lanes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) disk: Disk,
    pub(crate) send_budget: Arc<Budget>,
    pub(crate) receive_budget: Arc<Budget>,
    pub(crate) filters: Compiled,
    pub(crate) buckets: quota::Buckets,
    pub(crate) couriers: Couriers,
    clients: Mutex<Clients>,
    doubts: Mutex<doubt::Doubts>,
    handed_out: Mutex<HandedOut>,
    role: watch::Receiver<Role>,
    /// What is known of messages that wait for their turn.
    pub(crate) blocks: receive_fifo::Blocks,
    turn: AtomicU32,
    tunables: RwLock<Arc<Tunables>>,
    stopping: watch::Sender<bool>,
}

impl Broker {
    /// Wires an operation's needs together.
    pub fn new(
        settings: Settings,
        group: Group<Machine>,
        view: View,
        waiting: Arc<Waiting>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Broker {
            disk: Disk::new(settings.disk),
            send_budget: Budget::new(settings.send_bytes),
            receive_budget: Budget::new(settings.receive_bytes),
            clients: Mutex::new(Clients::new(settings.clients)),
            doubts: Mutex::default(),
            handed_out: Mutex::new(HandedOut::new(ANSWERS_ON_THEIR_WAY)),
            role: group.role(),
            readers: view.readers(),
            lanes: Lanes::default(),
            filters: Compiled::default(),
            buckets: quota::Buckets::default(),
            couriers: Couriers::default(),
            blocks: receive_fifo::Blocks::default(),
            turn: AtomicU32::new(0),
            tunables: RwLock::new(Arc::new(live::tunables(
                &settings.book.with(&view.live_settings()).config,
            ))),
            stopping: watch::Sender::new(false),
            settings,
            group,
            view,
            waiting,
            metrics,
        })
    }

    /// The group's name.
    pub fn name(&self) -> &BrokerName {
        &self.settings.name
    }

    /// This node's role, and its changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// The replicated state of this node, as far as it has come.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Space on this node's disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Who is connected.
    pub fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().expect("no holder panics")
    }

    /// `Ok` while this node leads.
    pub fn leading(&self) -> Result<(), Error> {
        if self.role.borrow().is_leader() { Ok(()) } else { Err(self.elsewhere()) }
    }

    /// `Ok` while this node may answer what takes nothing: it leads, or follows a leader and may
    /// answer as far as it has come.
    pub fn reading(&self) -> Result<Reading, Error> {
        self.reading_as(None)
    }

    /// The same for a caller that says itself what it is content with.
    pub fn reading_as(&self, asked: Option<Reading>) -> Result<Reading, Error> {
        let role = *self.role.borrow();
        let follower_reads = || self.tunables().follower_reads;
        let applied = asked.map_or_else(follower_reads, |asked| asked == Reading::Applied);
        if role.is_leader() {
            Ok(Reading::Latest)
        } else if applied && role.leader.is_some() {
            Ok(Reading::Applied)
        } else {
            Err(self.elsewhere())
        }
    }

    /// Whether what lies there may have to be read from the disk: a thread that serves others must
    /// not wait for that.
    fn is_cold(&self, position: LogOffset) -> bool {
        let end = self.group.log_span().map_or(LogOffset(0), |span| span.end);
        end.0.saturating_sub(position.0) > WARM_BYTES
    }

    /// From now on no receive call waits: those that do are answered as empty. Sessions with
    /// access points end.
    pub fn end_waits(&self) {
        self.stopping.send_replace(true);
        self.waiting.call_all();
        self.readers.call_all();
    }

    /// True once [`Broker::end_waits`] was called.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn elsewhere(&self) -> Error {
        let status = self.group.status();
        let leader = status
            .members
            .iter()
            .find(|member| Some(member.node_id) == status.leader)
            .map(|member| member.client_addr.clone())
            .filter(|address| !address.is_empty());
        Error::NotLeader { leader }
    }

    /// Puts `command` into the log and waits until it is applied here.
    pub(crate) async fn propose(
        &self,
        command: &Command,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        self.submit(command.encode(), deadline).await
    }

    /// The same for a command that is encoded already. Its place in the order of commands is taken
    /// when the future is first polled.
    pub(crate) async fn submit(
        &self,
        parts: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let (needed, level) = (level::since(parts[0][0]), self.view.level());
        if needed > level {
            return Err(Error::Level { needed, level });
        }
        propose(&self.group, &self.settings.fault, parts, deadline).await
    }

    /// Returns once this node's state holds everything that was committed before the call.
    pub(crate) async fn catch_up(&self, deadline: Instant) -> Result<(), Error> {
        if Bug::B05.is_sown() {
            return Ok(());
        }
        Ok(self.group.read_barrier(proposal_deadline(deadline)).await?)
    }

    fn next_turn(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

async fn propose(
    group: &Group<Machine>,
    fault: &Fault,
    parts: Vec<Bytes>,
    deadline: Instant,
) -> Result<Outcome, Error> {
    let tag = parts[0][0];
    fault.before(tag).await;
    let outcome = group.propose(parts, proposal_deadline(deadline)).await?;
    fault.after(tag).await;
    match outcome {
        Outcome::Rejected(rejection) => Err(rejection.into()),
        outcome => Ok(outcome),
    }
}

fn proposal_deadline(deadline: Instant) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now).saturating_sub(WAY_BACK);
    now + left.min(LONGEST_PROPOSAL)
}

/// An outcome that its command cannot have: the state machine and this crate disagree.
pub(crate) fn unexpected(outcome: &Outcome) -> ! {
    panic!("a command was answered with the outcome of another: {outcome:?}")
}
