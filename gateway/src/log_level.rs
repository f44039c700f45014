//! `apache.rocketmq.v2.Admin`: the log level of this very process, changed while it runs.
//!
//! The level is that of our own crates; what libraries log stays as `tracing.filter` says. It lasts
//! until it is changed again or the process ends.

use std::{fmt, sync::Arc};

use proto::v2::{
    ChangeLogLevelRequest, ChangeLogLevelResponse,
    admin_server::{Admin, AdminServer},
    change_log_level_request::Level,
};
use tonic::{Request, Response, Status};
use tracing::info;

/// The crates whose lines are ours.
const OURS: [&str; 7] = ["broker", "cli", "commitlog", "gateway", "namesrv", "proto", "raft"];

/// Replaces the filter of the process's log lines by these directives.
type Reload = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// How the log level of the process is changed, if it can be.
#[derive(Clone, Default)]
pub struct LogLevel {
    configured: String,
    reload: Option<Arc<Reload>>,
}

impl LogLevel {
    /// `reload` takes filter directives in the form of the setting `tracing.filter`, whose value is
    /// `configured`.
    pub fn new(
        configured: &str,
        reload: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { configured: configured.to_owned(), reload: Some(Arc::new(reload)) }
    }

    /// To add to a server.
    pub fn into_service(self) -> AdminServer<Self> {
        AdminServer::new(self)
    }

    fn change(&self, level: Level) -> Result<(), Status> {
        let Some(reload) = &self.reload else {
            return Err(Status::failed_precondition("the log level of this process is fixed"));
        };
        reload(&directives(&self.configured, name(level))).map_err(Status::internal)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("configured", &self.configured).finish_non_exhaustive()
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// The configured directives for others, and this level for us: of two directives for one module
/// the later counts.
fn directives(configured: &str, level: &str) -> String {
    let ours = OURS.map(|name| format!("{name}={level}")).join(",");
    match configured {
        "" => ours,
        configured => format!("{configured},{ours}"),
    }
}

#[tonic::async_trait]
impl Admin for LogLevel {
    async fn change_log_level(
        &self,
        request: Request<ChangeLogLevelRequest>,
    ) -> Result<Response<ChangeLogLevelResponse>, Status> {
        let number = request.into_inner().level;
        let level = Level::try_from(number)
            .map_err(|_| Status::invalid_argument(format!("there is no log level {number}")))?;
        self.change(level)?;
        info!(to = name(level), "log level changed");
        let remark = format!("the log level is {} until it is changed again", name(level));
        Ok(Response::new(ChangeLogLevelResponse { remark }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn asking(level: i32) -> Request<ChangeLogLevelRequest> {
        Request::new(ChangeLogLevelRequest { level })
    }

    #[tokio::test]
    async fn each_level_is_ours_and_libraries_keep_theirs() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let level = LogLevel::new("info,openraft=error", move |directives| {
            noted.lock().unwrap().push(directives.to_owned());
            Ok(())
        });
        let answer = level.change_log_level(asking(Level::Debug.into())).await.unwrap();
        assert!(answer.into_inner().remark.contains("debug"));
        let seen = seen.lock().unwrap();
        assert!(seen[0].starts_with("info,openraft=error,"), "{seen:?}");
        assert!(seen[0].contains("broker=debug") && seen[0].contains("namesrv=debug"));
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused() {
        let fixed = LogLevel::default();
        let refused = fixed.change_log_level(asking(Level::Info.into())).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        let level = LogLevel::new("", |_| Ok(()));
        let refused = level.change_log_level(asking(99)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
