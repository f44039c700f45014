//! The `broker` program.

use std::time::Duration;

use anyhow::Context;
use broker::{
    config::{self, Args, Config, TracingFormat},
    server::Server,
};
use clap::Parser;
use gateway::LogLevel;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, reload};

/// Calls that are cut off by the end of the program.
const LAST_TASKS_WAIT: Duration = Duration::from_millis(200);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = config::load(&args, std::env::vars()).context("settings")?;
    if args.print_config {
        use std::io::Write;
        return Ok(std::io::stdout().write_all(config::print(&config).as_bytes())?);
    }
    let log = start_tracing(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .thread_name("broker")
        .enable_all()
        .build()
        .context("start threads")?;
    let ended = runtime.block_on(run(config, log));
    // Whoever still uses the store lets go of it: it must be closed before the process ends.
    runtime.shutdown_timeout(LAST_TASKS_WAIT);
    ended
}

async fn run(config: Config, log: LogLevel) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut server = Server::start_logging(config, log).await?;
    tokio::select! {
        error = server.failed() => return Err(error.into()),
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    server.stop().await;
    Ok(())
}

/// What the log level is changed by, afterwards.
fn start_tracing(config: &Config) -> anyhow::Result<LogLevel> {
    let filter = EnvFilter::try_new(&config.tracing.filter)
        .with_context(|| format!("tracing.filter = {:?}", config.tracing.filter))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    Ok(match config.tracing.format {
        TracingFormat::Text => {
            let lines = lines.with_ansi(false).with_filter_reloading();
            let log = changeable(config, lines.reload_handle());
            lines.init();
            log
        }
        TracingFormat::Json => {
            let lines = lines.json().with_filter_reloading();
            let log = changeable(config, lines.reload_handle());
            lines.init();
            log
        }
    })
}

fn changeable<S: 'static>(config: &Config, handle: reload::Handle<EnvFilter, S>) -> LogLevel {
    LogLevel::new(&config.tracing.filter, move |directives| {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}
