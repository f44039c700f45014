//! Who asks, from where, and until when.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use proto::{
    ClientId, header,
    hop::{self, CallId},
    operator,
    v2::Language,
};
use tonic::{
    Request,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// What a request says about itself outside of its message.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `x-mq-client-id`; `None` when absent or blank.
    pub client_id: Option<ClientId>,
    /// `x-mq-language`, by the client's own word.
    pub language: Language,
    /// `x-mq-client-version` as sent, possibly empty.
    pub version: String,
    /// The other end of the connection: the client, or the node that forwarded for it.
    pub peer: SocketAddr,
    /// This end of the connection; unspecified where the transport has no addresses.
    pub local: SocketAddr,
    /// When the caller stops waiting. A caller that sets no deadline gets [`NO_DEADLINE`].
    pub deadline: Instant,
    /// Another node forwarded this: serve it here or refuse, never forward again.
    pub hop: bool,
    /// Names a receive call to the leader that performs it.
    pub call: Option<CallId>,
    /// An administrator's proof, which travels along: see [`proto::operator`].
    pub operator: Option<AsciiMetadataValue>,
}

/// How long a caller without a deadline of its own is served.
pub const NO_DEADLINE: Duration = Duration::from_secs(30);

/// Deadlines farther away are cut to this one. Clients send up to 60 years for Telemetry, which
/// has no deadline here anyway; the cut keeps clock arithmetic far from overflow.
pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Caller {
    /// Reads a request's metadata and connection. Never fails: what is absent or unreadable is
    /// treated as not sent, because clients differ in what they send.
    pub fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata();
        let timeout = text(metadata, "grpc-timeout").and_then(parse_timeout);
        Self {
            client_id: text(metadata, header::CLIENT_ID).and_then(|id| id.parse().ok()),
            language: text(metadata, header::LANGUAGE).map_or(Language::Unspecified, language),
            version: text(metadata, header::CLIENT_VERSION).unwrap_or_default().to_owned(),
            peer: request.remote_addr().unwrap_or(UNSPECIFIED),
            local: request.local_addr().unwrap_or(UNSPECIFIED),
            deadline: Instant::now() + timeout.unwrap_or(NO_DEADLINE).min(DEADLINE_MAX),
            hop: metadata.contains_key(hop::HOP),
            call: metadata.contains_key(hop::HOP).then(|| hop::call(metadata)).flatten(),
            operator: metadata.get(operator::PROOF).cloned(),
        }
    }

    /// This node itself, asking on its own behalf.
    pub(crate) fn this_node(deadline: Instant) -> Self {
        Self {
            client_id: None,
            language: Language::Unspecified,
            version: String::new(),
            peer: UNSPECIFIED,
            local: UNSPECIFIED,
            deadline,
            hop: false,
            call: None,
            operator: None,
        }
    }

    /// What is left of the caller's patience.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}

/// Names as the official clients send them; Node.js calls itself HTTP.
fn language(text: &str) -> Language {
    match text {
        "JAVA" => Language::Java,
        "CPP" => Language::Cpp,
        "DOTNET" | "DOT_NET" => Language::DotNet,
        "GO" | "GOLANG" => Language::Golang,
        "RUST" => Language::Rust,
        "PYTHON" => Language::Python,
        "PHP" => Language::Php,
        "HTTP" | "NODE_JS" => Language::NodeJs,
        "RUBY" => Language::Ruby,
        "OBJECTIVE_C" => Language::ObjectiveC,
        "DART" => Language::Dart,
        "KOTLIN" => Language::Kotlin,
        _ => Language::Unspecified,
    }
}

/// `grpc-timeout`: one to eight digits and a unit. `None` for anything else.
fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    // Eight digits of hours are 3.6e11 seconds: no unit overflows.
    match unit {
        'H' => Some(Duration::from_secs(amount * 3600)),
        'M' => Some(Duration::from_secs(amount * 60)),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_eight_digits_and_a_unit() {
        let cases = [
            ("3S", Some(Duration::from_secs(3))),
            ("2999m", Some(Duration::from_millis(2999))),
            ("31536000M", Some(Duration::from_secs(31_536_000 * 60))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("10u", Some(Duration::from_micros(10))),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("3", None),
            ("-3S", None),
            ("3s", None),
            ("3é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn a_far_deadline_is_cut_and_a_missing_one_is_given() {
        let mut far = Request::new(());
        far.metadata_mut().insert("grpc-timeout", "31536000M".parse().expect("ascii"));
        let now = Instant::now();
        assert!(Caller::of(&far).remaining(now) > DEADLINE_MAX - Duration::from_secs(1));
        assert!(Caller::of(&Request::new(())).remaining(now) >= NO_DEADLINE);
    }

    #[test]
    fn a_blank_client_id_is_none() {
        let mut request = Request::new(());
        request.metadata_mut().insert(header::CLIENT_ID, "".parse().expect("ascii"));
        assert_eq!(Caller::of(&request).client_id, None);
    }

    #[test]
    fn node_js_calls_itself_http() {
        assert_eq!(language("HTTP"), Language::NodeJs);
        assert_eq!(language("something new"), Language::Unspecified);
    }
}
