//! One Telemetry stream: settings up, settings and commands down, opened again when it breaks.

use std::{sync::Arc, time::Duration};

use proto::v2::{self, telemetry_command::Command};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::debug;

use crate::{Error, address::Address, client::Client, settings::ServerSettings};

/// Telemetry has no deadline of its own; the protocol wants one all the same.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Settings are told again this often, as official clients do.
const REPEAT: Duration = Duration::from_secs(300);
/// Commands that wait for the connection.
const WAITING: usize = 4;

/// A question about a transaction that its producer has left open.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) message: v2::Message,
    pub(crate) transaction_id: String,
    /// Who asked, and is to be answered.
    pub(crate) address: Address,
}

/// Keeps the stream to one address open until `stop` turns true.
pub(crate) async fn keep(client: Arc<Client>, address: Address, mut stop: watch::Receiver<bool>) {
    loop {
        let end = tokio::select! {
            end = converse(&client, &address) => end,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = end {
            debug!(%address, %error, "telemetry stream broke");
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// One stream, until it ends.
async fn converse(client: &Arc<Client>, address: &Address) -> Result<(), Error> {
    let mut role = client.role.subscribe();
    let (up, outgoing) = mpsc::channel(WAITING);
    let settings = || {
        let mut settings = client.role.borrow().to_wire(&client.config);
        settings.access_point = Some(address.to_wire());
        v2::TelemetryCommand { status: None, command: Some(Command::Settings(settings)) }
    };
    role.mark_unchanged();
    // The channel is empty, and its other end is below.
    let _ = up.send(settings()).await;
    let request = client.request(ReceiverStream::new(outgoing), FOR_EVER);
    let wait = client.config.request_timeout;
    let mut messaging = client.pool.messaging(address)?;
    let opened = timeout(wait, messaging.telemetry(request)).await;
    let opened = opened
        .map_err(|_| Error::Timeout { address: address.to_string(), waited: wait })?
        .map_err(|status| Error::transport(address.as_str(), status))?;
    let mut down: Streaming<v2::TelemetryCommand> = opened.into_inner();
    let mut again = Instant::now() + REPEAT;
    loop {
        tokio::select! {
            said = down.message() => {
                match said.map_err(|status| Error::transport(address.as_str(), status))? {
                    Some(command) => {
                        if let Some(answer) = heard(client, address, command) {
                            // Answers are not worth waiting for: the server asks again.
                            let _ = up.try_send(answer);
                        }
                    }
                    None => return Ok(()),
                }
            }
            changed = role.changed() => {
                if changed.is_err() || up.send(settings()).await.is_err() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(again) => {
                again = Instant::now() + REPEAT;
                if up.send(settings()).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Acts on what the server said; what to answer over the stream.
fn heard(
    client: &Arc<Client>,
    address: &Address,
    command: v2::TelemetryCommand,
) -> Option<v2::TelemetryCommand> {
    let unsupported = |command| {
        let code = v2::Code::Unsupported.into();
        let status = v2::Status { code, message: "not supported by this client".to_owned() };
        Some(v2::TelemetryCommand { status: Some(status), command: Some(command) })
    };
    match command.command {
        Some(Command::Settings(settings)) => {
            client.told.send_replace(Some(ServerSettings::from_wire(&settings)));
            None
        }
        Some(Command::RecoverOrphanedTransactionCommand(command)) => {
            let message = command.message?;
            let transaction_id = command.transaction_id;
            let orphan = Orphan { message, transaction_id, address: address.clone() };
            // A question that finds no room is asked again later.
            let _ = client.orphans.try_send(orphan);
            None
        }
        Some(Command::PrintThreadStackTraceCommand(asked)) => {
            unsupported(Command::ThreadStackTrace(v2::ThreadStackTrace {
                nonce: asked.nonce,
                thread_stack_trace: None,
            }))
        }
        Some(Command::VerifyMessageCommand(asked)) => {
            unsupported(Command::VerifyMessageResult(v2::VerifyMessageResult {
                nonce: asked.nonce,
            }))
        }
        Some(Command::ReconnectEndpointsCommand(_)) => {
            client.refresh.notify_one();
            None
        }
        Some(_) | None => None,
    }
}
