//! Where access points come from: the four ways that users know.

use std::{env, fmt, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    ConfigError, Error,
    address::{self, Address},
};

/// Names access points, as for RocketMQ's own tools.
const VARIABLE: &str = "NAMESRV_ADDR";
/// Names the host of an HTTP endpoint that lists them.
const DOMAIN_VARIABLE: &str = "ROCKETMQ_NAMESRV_DOMAIN";
/// The rest of that endpoint's URL, where the host has no path of its own.
const DEFAULT_PORT: u16 = 8080;
const DEFAULT_PATH: &str = "/rocketmq/nsaddr";
/// How long the endpoint may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
/// How often it is asked again.
const HTTP_REFRESH: Duration = Duration::from_secs(120);
/// An answer is a line of addresses. What is longer is none.
const HTTP_BYTES: u64 = 64 << 10;

/// How a client finds its access points.
#[derive(Clone)]
pub struct Discovery(Arc<Source>);

enum Source {
    Fixed(Vec<Address>),
    Http { url: Url, refresh: Duration },
}

struct Url {
    host: String,
    port: u16,
    path: String,
}

impl Discovery {
    pub(crate) fn of_list(addresses: Vec<Address>) -> Self {
        Self(Arc::new(Source::Fixed(addresses)))
    }

    /// Those in the environment variable `NAMESRV_ADDR`.
    ///
    /// # Errors
    /// When it is not set, or holds something else.
    pub fn environment() -> Result<Self, Error> {
        Self::of_user_with(None, &|name| (name == VARIABLE).then(|| env::var(name).ok()).flatten())
    }

    /// Those that an HTTP endpoint lists in one line, such as `10.0.0.1:9876;10.0.0.2:9876`. It is
    /// asked again every two minutes, and what it said last holds while it does not answer.
    ///
    /// # Errors
    /// When the URL is not `http://host[:port]/path`.
    pub fn http(url: &str) -> Result<Self, Error> {
        Ok(Self(Arc::new(Source::Http { url: parse(url)?, refresh: HTTP_REFRESH })))
    }

    /// The same, asked again this often.
    ///
    /// # Errors
    /// When the URL is not `http://host[:port]/path`, or the interval is zero.
    pub fn http_every(url: &str, refresh: Duration) -> Result<Self, Error> {
        if refresh.is_zero() {
            return Err(ConfigError::Zero { setting: "the discovery interval" }.into());
        }
        Ok(Self(Arc::new(Source::Http { url: parse(url)?, refresh })))
    }

    /// RocketMQ's order: what the user gave, the environment, the HTTP endpoint.
    pub(crate) fn of_user(option: Option<&str>) -> Result<Self, Error> {
        Self::of_user_with(option, &|name| env::var(name).ok())
    }

    fn of_user_with(
        option: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        if let Some(text) = option {
            return Self::fixed(text);
        }
        let set = |name| variable(name).filter(|text| !text.trim().is_empty());
        if let Some(text) = set(VARIABLE) {
            return Self::fixed(&text);
        }
        match set(DOMAIN_VARIABLE) {
            Some(domain) => Self::http(&domain_url(domain.trim())),
            None => Err(ConfigError::NoAccessPoint.into()),
        }
    }

    /// How often to look again; `None` when that is of no use.
    pub(crate) fn refresh(&self) -> Option<Duration> {
        match &*self.0 {
            Source::Fixed(_) => None,
            Source::Http { refresh, .. } => Some(*refresh),
        }
    }

    /// The access points as they are now; never an empty list.
    pub(crate) async fn find(&self) -> Result<Vec<Address>, Error> {
        match &*self.0 {
            Source::Fixed(addresses) => Ok(addresses.clone()),
            Source::Http { url, .. } => fetch(url).await,
        }
    }
}

/// `host`, `host:port`, or a whole URL.
fn domain_url(domain: &str) -> String {
    if domain.starts_with("http://") {
        return domain.to_owned();
    }
    match domain.contains(':') {
        true => format!("http://{domain}{DEFAULT_PATH}"),
        false => format!("http://{domain}:{DEFAULT_PORT}{DEFAULT_PATH}"),
    }
}

fn parse(url: &str) -> Result<Url, ConfigError> {
    let wrong = || ConfigError::Url { url: url.to_owned() };
    let rest = url.trim().strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (authority, 80),
    };
    // These would make another request of it.
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if host.is_empty() || host.contains(odd) || path.contains(odd) {
        return Err(wrong());
    }
    Ok(Url { host: host.to_owned(), port, path: format!("/{path}") })
}

async fn fetch(url: &Url) -> Result<Vec<Address>, Error> {
    let address = format!("{}:{}", url.host, url.port);
    let failed = |what: String| Error::transport(&address, tonic::Status::unavailable(what));
    let answer = timeout(HTTP_TIMEOUT, get(url)).await;
    let answer = answer
        .map_err(|_| Error::Timeout { address: address.clone(), waited: HTTP_TIMEOUT })?
        .map_err(|error| failed(error.to_string()))?;
    let line = body(&answer)
        .ok_or_else(|| failed("the discovery endpoint did not answer with 200".to_owned()))?;
    Ok(address::list(line.lines().next().unwrap_or_default())?)
}

/// A request of HTTP/1.0, which is answered whole and without chunks.
async fn get(url: &Url) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}:{}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n",
        url.path, url.host, url.port
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(HTTP_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The body of a good answer.
fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?;
    (head.starts_with("HTTP/1.") && status == "200").then_some(body.trim_start())
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Source::Fixed(addresses) => write!(f, "{addresses:?}"),
            Source::Http { url, .. } => write!(f, "http://{}:{}{}", url.host, url.port, url.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(option: Option<&str>, set: &[(&str, &str)]) -> Result<String, Error> {
        let variable = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Discovery::of_user_with(option, &variable).map(|found| format!("{found:?}"))
    }

    #[test]
    fn an_option_beats_the_environment_and_that_the_endpoint() {
        let set = [("NAMESRV_ADDR", "b:2"), ("ROCKETMQ_NAMESRV_DOMAIN", "jmenv.example")];
        assert_eq!(found(Some("a:1"), &set).unwrap(), "[a:1]");
        assert_eq!(found(None, &set).unwrap(), "[b:2]");
        assert_eq!(found(None, &set[1..]).unwrap(), "http://jmenv.example:8080/rocketmq/nsaddr");
        assert!(matches!(found(None, &[]), Err(Error::Config(ConfigError::NoAccessPoint))));
    }

    #[test]
    fn urls_are_checked() {
        assert_eq!(format!("{:?}", Discovery::http("http://h/x?y").unwrap()), "http://h:80/x?y");
        for wrong in ["h/x", "https://h/x", "http:///x", "http://h:x/y", "http://h/a b"] {
            assert!(Discovery::http(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_good_answer_counts() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\na:1;b:2\n"), Some("a:1;b:2\n"));
        assert_eq!(body("HTTP/1.1 404 Not Found\r\n\r\na:1"), None);
        assert_eq!(body("a:1"), None);
    }
}
