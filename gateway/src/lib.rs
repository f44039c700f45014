//! Forwarding, Telemetry termination and sessions.
