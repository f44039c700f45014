//! The wire: message types, validated words, limits.
