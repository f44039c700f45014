//! The echo as the other half of a comparison: a process of its own, as a broker is.

use std::{env, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time,
};

const START_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Args)]
pub struct CeilingArgs {
    /// Also send the same load to an echo, which stores nothing, and print the ratio.
    #[arg(long)]
    pub ceiling: bool,
    /// The address of an echo that runs already (`mqbench echo`), instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    pub ceiling_at: Option<String>,
}

/// An echo to send to. One that was started here ends when this is dropped.
pub(super) struct Ceiling {
    pub(super) address: String,
    _child: Option<Child>,
}

impl Ceiling {
    /// `None` when nobody asked for it.
    pub(super) async fn find(args: &CeilingArgs) -> Result<Option<Self>> {
        match &args.ceiling_at {
            Some(address) => Ok(Some(Self { address: address.clone(), _child: None })),
            None if args.ceiling => start().await.context("start an echo").map(Some),
            None => Ok(None),
        }
    }
}

async fn start() -> Result<Ceiling> {
    let mut child = Command::new(env::current_exe()?)
        .args(["echo", "--listen", "127.0.0.1:0", "--as-child"])
        // It holds the other end, which closes when this process ends, however it ends.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().context("its output is piped")?;
    let mut lines = BufReader::new(out).lines();
    let line = time::timeout(START_TIMEOUT, lines.next_line()).await;
    let line = line.context("it did not start in time")??.unwrap_or_default();
    let Some(address) = line.strip_prefix("listening on ") else {
        bail!("it said {line:?} instead of its address");
    };
    Ok(Ceiling { address: address.to_owned(), _child: Some(child) })
}
