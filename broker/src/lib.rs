//! RocketMQ semantics over a replicated log.
