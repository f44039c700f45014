//! The conversation with a client: its settings in, ours and commands out.
//!
//! Every settings message gets exactly one answer, soon. The stream stays open until the client
//! closes it or this node stops.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use proto::{
    ClientId, ConsumerGroup, Filter,
    v2::{Language, Settings, TelemetryCommand, Ua, settings::PubSub, telemetry_command::Command},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::debug;

use crate::{
    Caller, Directory, Local,
    clients::{Identity, Outbound},
    gateway::Inner,
    settings,
    status::{self, Refusal},
};

/// The stream back to a client.
pub(crate) type Commands =
    Pin<Box<dyn Stream<Item = Result<TelemetryCommand, Status>> + Send + 'static>>;

/// Commands that wait for a client that does not read.
const OUTBOUND_MAX: usize = 64;

/// How long an answer to settings waits for a leader. The first one decides whether a consumer
/// keeps order, and clients give up after 3 s.
const GROUP_WAIT: Duration = Duration::from_millis(1500);

/// Opens the conversation. Returns at once: clients wait for the headers before they speak.
pub(crate) fn open<L: Local, D: Directory>(
    inner: &Arc<Inner<L, D>>,
    caller: Caller,
    inbound: Streaming<TelemetryCommand>,
) -> Result<Commands, Status> {
    let Some(id) = caller.client_id.clone() else {
        return Err(Refusal::ClientIdRequired.to_stream_error());
    };
    let (outbound, commands) = mpsc::channel(OUTBOUND_MAX);
    let stream = inner
        .registry
        .attach(&id, outbound.clone())
        .map_err(|full| Status::resource_exhausted(too_many(full.max).to_string()))?;
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        converse(&inner, &caller, &id, inbound, &outbound).await;
        inner.registry.detach(&id, stream);
        // Where one stream broke, an answer on another may have gone with it.
        inner.registry.lost(&id);
    });
    Ok(Box::pin(ReceiverStream::new(commands)))
}

fn too_many(max: usize) -> Refusal {
    Refusal::TooManyClients { max }
}

async fn converse<L: Local, D: Directory>(
    inner: &Inner<L, D>,
    caller: &Caller,
    id: &ClientId,
    mut inbound: Streaming<TelemetryCommand>,
    outbound: &Outbound,
) {
    let mut closing = inner.closing();
    loop {
        let said = tokio::select! {
            said = inbound.message() => said,
            () = outbound.closed() => return,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        let command = match said {
            Ok(Some(command)) => command,
            Ok(None) => return,
            Err(error) => {
                debug!(client_id = %id, %error, "telemetry stream broke");
                return;
            }
        };
        inner.registry.heard(id);
        match command.command {
            Some(Command::Settings(settings)) => {
                let answer = answer(inner, caller, id, settings).await;
                let refused = answer.is_err();
                if outbound.send(answer).await.is_err() || refused {
                    return;
                }
            }
            Some(other) => debug!(client_id = %id, command = ?other, "answer of a client ignored"),
            None => debug!(client_id = %id, "empty command"),
        }
    }
}

/// Registers the client and tells it what it must know.
async fn answer<L: Local, D: Directory>(
    inner: &Inner<L, D>,
    caller: &Caller,
    id: &ClientId,
    received: Settings,
) -> Result<TelemetryCommand, Status> {
    check_filters(&received).map_err(|refusal| refusal.to_stream_error())?;
    let group = consumer_group(&received).map_err(|refusal| refusal.to_stream_error())?;
    let group = match &group {
        Some(group) => {
            inner.forwarder.group_settings(&inner.consumer_groups, group, GROUP_WAIT).await
        }
        None => None,
    };
    let language = language(&received, caller.language);
    let merged = settings::merge(&received, group.as_ref(), language);
    let identity = Identity {
        settings: received,
        language: language.as_str_name().to_owned(),
        version: caller.version.clone(),
        address: caller.peer.to_string(),
    };
    inner
        .registry
        .register(id, identity)
        .map_err(|full| Status::resource_exhausted(too_many(full.max).to_string()))?;
    Ok(settings_command(merged))
}

/// Settings as a command.
pub(crate) fn settings_command(settings: Settings) -> TelemetryCommand {
    TelemetryCommand { status: Some(status::ok()), command: Some(Command::Settings(settings)) }
}

/// The consumer group that settings name; `None` for producers and for consumers that name none.
pub(crate) fn consumer_group(settings: &Settings) -> Result<Option<ConsumerGroup>, Refusal> {
    match &settings.pub_sub {
        Some(PubSub::Subscription(subscription)) if subscription.group.is_some() => {
            Ok(Some(ConsumerGroup::from_resource(subscription.group.as_ref())?))
        }
        Some(PubSub::Subscription(_) | PubSub::Publishing(_)) | None => Ok(None),
    }
}

/// Refuses a subscription that no receive call could use: better when a consumer starts than while
/// it polls.
fn check_filters(settings: &Settings) -> Result<(), Refusal> {
    let Some(PubSub::Subscription(subscription)) = &settings.pub_sub else { return Ok(()) };
    for entry in &subscription.subscriptions {
        Filter::from_expression(entry.expression.as_ref())?;
    }
    Ok(())
}

/// By the settings' own word, else by the metadata's.
pub(crate) fn language(settings: &Settings, metadata: Language) -> Language {
    match settings.user_agent.as_ref().map(Ua::language) {
        Some(Language::Unspecified) | None => metadata,
        Some(language) => language,
    }
}
