//! The `broker` program.

use std::time::Duration;

use anyhow::Context;
use broker::{
    config::{self, Args, Config, TracingFormat},
    server::Server,
};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Calls that are cut off by the end of the program.
const LAST_TASKS_WAIT: Duration = Duration::from_millis(200);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = config::load(&args, std::env::vars()).context("settings")?;
    if args.print_config {
        use std::io::Write;
        return Ok(std::io::stdout().write_all(config::print(&config).as_bytes())?);
    }
    start_tracing(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .thread_name("broker")
        .enable_all()
        .build()
        .context("start threads")?;
    let ended = runtime.block_on(run(config));
    // Whoever still uses the store lets go of it: it must be closed before the process ends.
    runtime.shutdown_timeout(LAST_TASKS_WAIT);
    ended
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut server = Server::start(config).await?;
    tokio::select! {
        error = server.failed() => return Err(error.into()),
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    server.stop().await;
    Ok(())
}

fn start_tracing(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.tracing.filter)
        .with_context(|| format!("tracing.filter = {:?}", config.tracing.filter))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.tracing.format {
        TracingFormat::Text => lines.with_ansi(false).init(),
        TracingFormat::Json => lines.json().init(),
    }
    Ok(())
}
