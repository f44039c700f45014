//! Names of the gRPC metadata that clients send with their requests.

/// Who the client is. The only one that requests need.
pub const CLIENT_ID: &str = "x-mq-client-id";
/// `JAVA`, `GO`, `PYTHON`, `HTTP` (Node.js), `RUST`, `CPP`, `DOTNET`; any text must do.
pub const LANGUAGE: &str = "x-mq-language";
pub const CLIENT_VERSION: &str = "x-mq-client-version";
pub const PROTOCOL: &str = "x-mq-protocol";
pub const REQUEST_ID: &str = "x-mq-request-id";
/// Informational: what counts is the namespace within each resource.
pub const NAMESPACE: &str = "x-mq-namespace";
/// The text that the signature covers.
pub const DATE_TIME: &str = "x-mq-date-time";
pub const AUTHORIZATION: &str = "authorization";
pub const SESSION_TOKEN: &str = "x-mq-session-token";
