//! Fetches what a directory lacks of a replica's copy.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use proto::backup;
use proto::backup_rpc::{
    Begin, Manifest, TakeRequest, TakeResponse, Wants, backup_client::BackupClient, take_request,
    take_response::Step,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::directory::{Directory, Fetched};
use crate::{admin::operator::Operator, failure::Failure};

/// A replica says something every second; one that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest message is a chunk of 1 MiB, or an offer with many files.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) operator: &'a Operator,
    pub(super) broker: String,
    pub(super) index: u64,
    pub(super) rate: u64,
}

/// What the directory holds now, but for the manifest.
pub(super) struct Taken {
    pub(super) manifest: Manifest,
    pub(super) received: u64,
    pub(super) reused: u64,
}

pub(super) async fn take(
    (channel, address): (Channel, &str),
    wish: Wish<'_>,
    directory: &mut Directory,
    bar: &ProgressBar,
) -> Result<Taken> {
    let mut client = BackupClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (requests, outbound) = mpsc::channel(2);
    let begin = Begin { broker_name: wish.broker, at_least_index: wish.index, rate: wish.rate };
    let send = async |step| {
        let request = TakeRequest { step: Some(step) };
        requests.send(request).await.context("the replica ended the backup")
    };
    send(take_request::Step::Begin(begin)).await?;
    bar.set_message("making a snapshot");
    let request = wish.operator.lasting_request(ReceiverStream::new(outbound));
    let call = timeout(PATIENCE, client.take(request)).await;
    let answers = call.with_context(|| format!("{address} does not answer"))?;
    let answers = answers.map_err(|status| failure(&status, address))?.into_inner();
    let mut answers = Answers { answers, address };
    let Step::Offer(mut manifest) = answers.next().await? else {
        bail!("{address} does not begin with an offer");
    };
    let checked = backup::check(&manifest);
    checked.with_context(|| format!("{address} offers what cannot be a backup"))?;
    let plan = directory.plan(&manifest)?;
    plan.complete(&mut manifest);
    let wants = plan.wants.clone();
    send(take_request::Step::Wants(Wants { parts: wants.clone() })).await?;
    bar.set_length(missing(&manifest, &wants));
    bar.set_message("");
    let mut received = 0;
    for part in wants {
        let file = usize::try_from(part.file).context("indexes fit")?;
        let mut fetched = directory.fetch(&manifest, file, part.from)?;
        let crc = loop {
            match answers.next().await? {
                Step::Chunk(chunk) if chunk.file == part.file => {
                    received += chunk.data.len() as u64;
                    bar.inc(chunk.data.len() as u64);
                    // The disk must not hold up the connection's signs of life.
                    fetched = write(fetched, chunk.at, chunk.data, chunk.crc).await?;
                }
                Step::End(end) if end.file == part.file => break end.crc,
                _ => bail!("{address} sends something that was not asked for"),
            }
        };
        let ended = tokio::task::spawn_blocking(move || fetched.end(crc)).await;
        let crc = ended.context("write the backup")??;
        if let Some(segment) = file.checked_sub(manifest.state.len()) {
            manifest.segments[segment].crc = crc;
        }
    }
    let Step::Done(_) = answers.next().await? else {
        bail!("{address} does not end the backup");
    };
    Ok(Taken { manifest, received, reused: plan.reused })
}

fn missing(manifest: &Manifest, wants: &[proto::backup_rpc::Part]) -> u64 {
    let state = manifest.state.iter().map(|file| file.len);
    let lens: Vec<u64> = state.chain(manifest.segments.iter().map(|s| s.len)).collect();
    let left = |part: &proto::backup_rpc::Part| {
        let len = usize::try_from(part.file).ok().and_then(|file| lens.get(file));
        len.map_or(0, |len| len.saturating_sub(part.from))
    };
    wants.iter().map(left).sum()
}

async fn write(mut fetched: Fetched, at: u64, data: bytes::Bytes, crc: u32) -> Result<Fetched> {
    let written = tokio::task::spawn_blocking(move || {
        ensure!(crc32fast::hash(&data) == crc, "bytes were changed on their way");
        fetched.write(at, &data)?;
        Ok(fetched)
    });
    written.await.context("write the backup")?
}

struct Answers<'a> {
    answers: Streaming<TakeResponse>,
    address: &'a str,
}

impl Answers<'_> {
    /// The next answer that says something.
    async fn next(&mut self) -> Result<Step> {
        loop {
            let message = timeout(PATIENCE, self.answers.message()).await;
            let message = message.with_context(|| format!("{} is silent", self.address))?;
            let message = message.map_err(|status| failure(&status, self.address))?;
            let ended = || format!("{} ended the backup without a word", self.address);
            match message.and_then(|message| message.step).with_context(ended)? {
                Step::Busy(_) => {}
                step => return Ok(step),
            }
        }
    }
}

/// A backup changes nothing at the replica, so whatever ends it leaves nothing unknown there.
fn failure(status: &Status, address: &str) -> Failure {
    match Failure::of_status(status, address) {
        Failure::Unknown(text) => Failure::NotDone(text),
        known => known,
    }
}
