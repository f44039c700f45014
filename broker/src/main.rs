//! The `broker` program.

use std::{os::unix::process::CommandExt, process::ExitCode, time::Duration};

use anyhow::Context;
use broker::{
    config::{self, Args, Command, Config, Loaded, TracingFormat},
    server::{Server, ServerError},
};
use clap::Parser;
use gateway::LogLevel;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, reload};

/// How often this process took its own place, which is passed on to the next one.
const STARTED_OVER: &str = "BROKER_STARTED_OVER";
/// A disk that damages the state again and again is not worth another try.
const START_OVER_MOST: u32 = 16;
/// Calls that are cut off by the end of the program.
const LAST_TASKS_WAIT: Duration = Duration::from_millis(200);

fn main() -> anyhow::Result<ExitCode> {
    let mut args = Args::parse();
    match args.command.take() {
        Some(Command::Inspect(inspect)) => inspect.run(),
        Some(Command::Restore(restore)) => restore.run().map(|()| ExitCode::SUCCESS),
        None => serve(&args).map(|()| ExitCode::SUCCESS),
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    let loaded = config::load_from(args, std::env::vars()).context("settings")?;
    let config = &loaded.config;
    if args.print_config {
        use std::io::Write;
        return Ok(std::io::stdout().write_all(config::print(config).as_bytes())?);
    }
    let log = start_tracing(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .thread_name("broker")
        .enable_all()
        .build()
        .context("start threads")?;
    let ended = runtime.block_on(run(loaded, log));
    // Whoever still uses the store lets go of it: it must be closed before the process ends.
    runtime.shutdown_timeout(LAST_TASKS_WAIT);
    match ended {
        Err(error) if is_damaged_state(&error) => Err(start_over(error)),
        ended => ended,
    }
}

fn is_damaged_state(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ServerError::StateDamaged { .. }))
}

/// Takes the place of this process by a new one, which does without the damaged state; returns only
/// if that is not to be done, with the reason to end.
fn start_over(error: anyhow::Error) -> anyhow::Error {
    let before = std::env::var(STARTED_OVER).ok().and_then(|times| times.parse().ok()).unwrap_or(0);
    if before >= START_OVER_MOST {
        return error.context(format!("started over {before} times"));
    }
    tracing::warn!("starting over without the damaged state");
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(why) => return error.context(why),
    };
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1)).env(STARTED_OVER, (before + 1).to_string());
    error.context(command.exec())
}

async fn run(loaded: Loaded, log: LogLevel) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut server = Server::start_logging(loaded, log).await?;
    let ended = tokio::select! {
        error = server.failed() => Err(anyhow::Error::from(error)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    match &ended {
        // It can still hand over, or is well and was removed: its clients get their answers.
        Err(error) if !is_damaged_state(error) && !is_removal(error) => {}
        _ => server.stop().await,
    }
    ended
}

fn is_removal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ServerError>().is_some_and(ServerError::is_removal)
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
