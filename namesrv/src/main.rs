//! The `namesrv` program.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use gateway::LogLevel;
use namesrv::{
    config::{self, Args, Config},
    server::NameServer,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::{EnvFilter, reload};

fn main() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            writeln!(std::io::stderr(), "namesrv: {error:#}").unwrap_or(());
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    let config = config::load(args, std::env::vars())?;
    if args.print_config {
        let printed = std::io::stdout().write_all(config::print(&config).as_bytes());
        return printed.context("print the settings");
    }
    let log = trace(&config)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(run(config, log))
}

async fn run(config: Config, log: LogLevel) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let server = NameServer::bind(config).await?.logging(log);
    info!(listen = %server.address()?, metrics = ?server.pages_address(), "serving");
    server
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await?;
    info!("stopped");
    Ok(())
}

/// What the log level is changed by, afterwards.
fn trace(config: &Config) -> anyhow::Result<LogLevel> {
    let filter = EnvFilter::try_new(&config.tracing.filter)
        .with_context(|| format!("tracing.filter = {:?}", config.tracing.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    Ok(match config.tracing.format.as_str() {
        "json" => {
            let lines = lines.json().with_filter_reloading();
            let log = changeable(config, lines.reload_handle());
            lines.init();
            log
        }
        _ => {
            let lines = lines.with_filter_reloading();
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
